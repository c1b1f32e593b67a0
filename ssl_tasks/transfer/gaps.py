"""How far two domains lie apart in an encoder's features: MMD and the proxy A-distance.

    gap(source_SD, target_TD)      # {"mmd": 0.31, "a_distance": 1.9}

Both are measured on features standardized by all rows together, so that no rescaling of a feature changes them, and
both may fall below 0 where the domains are alike: neither is biased upwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssl_tasks.norms import evenly
from ssl_tasks.transfer.strategies.linear_probe import standardize

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_tasks.transfer.base import FloatArray, IntArray

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the median squared distance, for the squared bandwidths of the kernels."""
MOST_ROWS = 1000
"""Of a domain: the kernels are matrices of all pairs."""
MEASURES = ("mmd", "a_distance")


def gap(source_SD: FloatArray, target_TD: FloatArray) -> dict[str, float]:
    """Both measures, on equally many rows of each domain, `MOST_ROWS` at most, evenly from all.

    Two rows of each domain are the least.
    """
    import torch

    count = min(len(source_SD), len(target_TD), MOST_ROWS)
    source, target = (rows[evenly(np.arange(len(rows)), count)] for rows in (source_SD, target_TD))
    prepare = standardize(np.concatenate([source, target]))
    source, target = prepare(source), prepare(target)
    mmd = float(mmd_squared(torch.from_numpy(source), torch.from_numpy(target)))
    return dict(zip(MEASURES, (mmd, a_distance(source, target)), strict=True))


def mmd_squared(source_SD: Tensor, target_TD: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy, a scalar that gradients flow through.

    Gretton et al., "A Kernel Two-Sample Test" (JMLR 13, 2012, equation 3), with the mean of five RBF kernels
    exp(-d^2 / (2 f m)) for f of `FACTORS`, where m is the (lower) median squared distance of all pairs of rows: the
    median heuristic (section 8), in several widths as in Long et al., "Learning Transferable Features with Deep
    Adaptation Networks" (arXiv 1502.02791, section 3.1).
    """
    import torch

    rows = torch.cat([source_SD, target_TD])
    squares = rows.square().sum(dim=1)
    squared = (squares[:, None] + squares[None, :] - 2 * rows @ rows.T).clamp(min=0)
    upper = torch.triu_indices(len(rows), len(rows), offset=1, device=rows.device)
    median = squared.detach()[upper[0], upper[1]].median().clamp(min=torch.finfo(rows.dtype).tiny)
    kernel = torch.stack([(-squared / (2 * factor * median)).exp() for factor in FACTORS]).mean(dim=0)
    split = len(source_SD)
    within = _off_diagonal_mean(kernel[:split, :split]) + _off_diagonal_mean(kernel[split:, split:])
    return within - 2 * kernel[:split, split:].mean()


def _off_diagonal_mean(kernel_NN: Tensor) -> Tensor:
    count = len(kernel_NN)
    return (kernel_NN.sum() - kernel_NN.diagonal().sum()) / (count * (count - 1))


def a_distance(source_ND: FloatArray, target_ND: FloatArray) -> float:
    """Proxy A-distance 2 (1 - 2 error) of a linear classifier between the domains: 0 for equal ones, 2 for separate.

    Ben-David et al., "Analysis of Representations for Domain Adaptation" (NIPS 2007, section 4). The classifier is
    scikit-learn's logistic regression, fitted to every other row of each domain and judged on the rest, and the other
    way round; the error is the mean of both.

    Args:
        source_ND, target_ND: equally many rows, standardized.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([source_ND, target_ND])
    domain = np.repeat([0, 1], [len(source_ND), len(target_ND)])
    half: IntArray = np.concatenate([np.arange(len(source_ND)), np.arange(len(target_ND))]) % 2
    errors = []
    for judged in (half == 0, half == 1):
        model = LogisticRegression(max_iter=1000).fit(rows[~judged], domain[~judged])
        errors.append((model.predict(rows[judged]) != domain[judged]).mean())
    return 2.0 * (1.0 - 2.0 * float(np.mean(errors)))
