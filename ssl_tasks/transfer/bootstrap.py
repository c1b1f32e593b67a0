"""Paired bootstrap over seeds and test groups.

Rows of one group (near duplicates, one patient) are no independent evidence, so whole groups are resampled,
and seeds apart from them: the two-factor ("pigeonhole") bootstrap of Owen, "The pigeonhole bootstrap",
Annals of Applied Statistics 1(2), 2007, doi:10.1214/07-AOAS122. Its intervals err on the wide side. All fits
meet the same replicates, which is what makes the differences paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.metrics import weighted

Float = NDArray[np.float64]
Int = NDArray[np.int64]

LEVEL = 0.95
CELLS = 1 << 23
"""Row weights held at once: 64 MiB."""


def group_weights(groups: Int, resamples: int, seed: int) -> Iterator[Float]:
    """Blocks (T, B) of how often each test row counts, replicate by replicate; together `resamples` columns.

    Args:
        groups: (T,) group numbers in [0, G).
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    count = int(groups.max()) + 1
    block = max(1, CELLS // len(groups))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=size)
        yield drawn.T[groups].astype(np.float64)


def seed_weights(num_seeds: int, resamples: int, seed: int) -> Float:
    """(B, S) share of each seed in each replicate; rows sum to 1."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    return generator.multinomial(num_seeds, np.full(num_seeds, 1.0 / num_seeds), size=resamples) / num_seeds


def replicates(
    labels: NDArray[Any],
    outcomes: Sequence[tuple[NDArray[Any], Float, Float]],
    groups: Int,
    num_classes: int,
    resamples: int,
    seed: int,
    weigh: Callable[..., dict[str, Float]] = weighted,
) -> list[dict[str, Float]]:
    """Every metric of every fit under every replicate of the test groups.

    Args:
        labels: (T,) true classes.
        outcomes: per fit, predicted classes (T,), likelihoods of the true class (T,) and of the predicted one (T,).
        weigh: as `metrics.weighted`; that of the task's kind, whose labels and answers these are then.

    Returns:
        Per fit, (B,) for each metric.
    """
    blocks: list[list[dict[str, Float]]] = [[] for _ in outcomes]
    for weights_TB in group_weights(groups, resamples, seed):
        for parts, outcome in zip(blocks, outcomes, strict=True):
            parts.append(weigh(labels, *outcome, weights_TB, num_classes))
    return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in blocks]


def interval(difference_BS: Float, shares_BS: Float) -> tuple[float, float]:
    """Percentile interval of the mean over seeds of paired differences, at `LEVEL`."""
    means = _means(difference_BS, shares_BS)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_value(difference_BS: Float, shares_BS: Float) -> float:
    """Two-sided p-value of no difference: twice the smaller share of replicates at or beyond 0, itself among them.

    It is below 1 - `LEVEL` about where the interval leaves out 0, and never below 2 / (B + 1) (Davison and Hinkley,
    "Bootstrap Methods and their Application", 1997, section 4.2).
    """
    means = _means(difference_BS, shares_BS)
    fewer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (1 + len(means)))


def replicates_needed(comparisons: int) -> int:
    """With fewer replicates not even the clearest of so many comparisons would stand `holm`'s correction."""
    return round(2 * comparisons / (1 - LEVEL))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6(2), 1979), in the same order."""
    corrected = [0.0] * len(p_values)
    most = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = most
    return corrected


def _means(difference_BS: Float, shares_BS: Float) -> Float:
    means: Float = (difference_BS * shares_BS).sum(axis=1)
    return means
