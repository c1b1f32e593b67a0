"""Classification metrics under row weights: the same lines give the value and its bootstrap replicates.

    score(labels, scores)["balanced_accuracy"]
    weighted(labels, predicted, likelihood, weights_TB, num_classes)["accuracy"]

The first gives a number, the second one for each of B columns of weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
HIGHER_IS_BETTER = METRICS[:3]

Float = NDArray[np.float64]


def weighted(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], likelihood: Float, weights_TB: Float, num_classes: int
) -> dict[str, Float]:
    """Every metric for each column of weights, as scikit-learn defines them.

    Args:
        labels: (T,) true classes.
        predicted: (T,) predicted classes.
        likelihood: (T,) probability that was given to the true class.
        weights_TB: (T, B) how often each row counts in each of B replicates.

    Returns:
        (B,) for each of `METRICS`. Balanced accuracy averages recall over the classes with true rows, macro F1
        over the classes with true or predicted rows.
    """
    from scipy import sparse

    rows = np.arange(len(labels))
    hit = (labels == predicted).astype(np.float64)

    def per_class(classes: NDArray[np.int64], value: Float) -> Float:
        counts: Float = sparse.csr_array((value, (classes, rows)), shape=(num_classes, len(rows))) @ weights_TB
        return counts

    total = weights_TB.sum(axis=0)
    true_KB = per_class(labels, np.ones(len(rows)))
    both_KB = true_KB + per_class(predicted, np.ones(len(rows)))
    hits_KB = per_class(labels, hit)
    return {
        "accuracy": hit @ weights_TB / total,
        "balanced_accuracy": _mean_of_ratios(hits_KB, true_KB),
        "macro_f1": _mean_of_ratios(2 * hits_KB, both_KB),
        "log_loss": -np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1.0)) @ weights_TB / total,
    }


def _mean_of_ratios(part_KB: Float, whole_KB: Float) -> Float:
    """Mean over the classes whose denominator is not zero."""
    ratio = np.divide(part_KB, whole_KB, out=np.zeros_like(part_KB), where=whole_KB > 0)
    mean: Float = ratio.sum(axis=0) / (whole_KB > 0).sum(axis=0)
    return mean


def score(labels: NDArray[np.int64], scores: Float) -> dict[str, float]:
    """Every metric of class probabilities (T, K) against true classes (T,); T must not be 0."""
    assert len(labels), "no rows to score"
    predicted = scores.argmax(axis=1)
    likelihood = scores[np.arange(len(labels)), labels]
    values = weighted(labels, predicted, likelihood, np.ones((len(labels), 1)), scores.shape[1])
    return {name: float(value[0]) for name, value in values.items()}
