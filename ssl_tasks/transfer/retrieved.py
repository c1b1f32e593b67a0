"""Metrics of rankings: which rows of a gallery stand first for a query, where those of its class are the right ones.

Mean average precision is that of Manning et al., "Introduction to Information Retrieval", 2008, section 8.4; recall@k,
as in metric learning, asks whether one of the first k is right (Oh Song et al., arXiv 1511.06452, section 6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

RANKS = (1, 5, 10)
METRICS = ("mean_average_precision", *(f"recall_at_{rank}" for rank in RANKS))
CELLS = 1 << 22
"""Similarities held at once: 32 MiB, and a few times that while they are sorted."""


def measure(gallery_GD: Float, classes: Int, queries_QD: Float, wanted: Int) -> Float:
    """(Q, 4) `METRICS` of each query.

    The gallery is ranked by the dot product with the query; of equal ones the earlier comes first.

    Args:
        gallery_GD: (G, D) rows of length 1.
        classes: (G,) theirs.
        queries_QD: (Q, D) rows of length 1.
        wanted: (Q,) class of each query.

    Returns:
        Average precision: the mean, over the gallery rows of the query's class, of the share of that class among the
        rows down to it; 0 where the gallery has none. Recall@k: 1 where one of the first k is of that class, else 0.
    """
    found = np.zeros((len(queries_QD), len(METRICS)))
    step = max(1, CELLS // max(1, len(gallery_GD)))
    for start in range(0, len(queries_QD), step):
        part = slice(start, start + step)
        order = np.argsort(-(queries_QD[part] @ gallery_GD.T), axis=1, kind="stable")
        found[part] = of_ranking(classes[order] == wanted[part, None])
    return found


def of_ranking(right_QG: NDArray[np.bool_]) -> Float:
    """(Q, 4) `METRICS` of rankings; `right_QG` says which ranks hold a right row."""
    so_far = np.cumsum(right_QG, axis=1)
    precision = so_far / np.arange(1, right_QG.shape[1] + 1)
    average = (precision * right_QG).sum(axis=1) / np.maximum(so_far[:, -1], 1)
    hits = [right_QG[:, :rank].any(axis=1) for rank in RANKS]
    return np.stack([average, *hits], axis=1).astype(np.float64)


def weighted(
    labels: Int, measures_QM: Float, likelihood: Float, confidence: Float, weights_TB: Float, num_outputs: int
) -> dict[str, Float]:
    """Means of `measure` over queries, for each column of weights.

    Args:
        labels, likelihood, confidence, num_outputs: not looked at.
        measures_QM: (T, 4).
        weights_TB: (T, B) how often each row counts in each of B replicates.
    """
    means = measures_QM.T @ weights_TB / weights_TB.sum(axis=0)
    return dict(zip(METRICS, means, strict=True))
