"""Classification metrics under row weights: the same lines give the value and its bootstrap replicates.

    weighted(labels, predicted, likelihood, confidence, weights_TB, num_classes)["accuracy"]

gives a number for each of B columns of weights. `ranked` has those that sort all rows for every class, which is too
much for thousands of replicates: they carry no interval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")
HIGHER_IS_BETTER = METRICS[:3]
RANKED = ("auroc", "average_precision")
BINS = 10

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def weighted(
    labels: Int, predicted: Int, likelihood: Float, confidence: Float, weights_TB: Float, num_classes: int
) -> dict[str, Float]:
    """Every metric for each column of weights, as scikit-learn defines them.

    Args:
        labels: (T,) true classes.
        predicted: (T,) predicted classes.
        likelihood: (T,) probability that was given to the true class.
        confidence: (T,) probability that was given to the predicted class.
        weights_TB: (T, B) how often each row counts in each of B replicates.

    Returns:
        (B,) for each of `METRICS`. Balanced accuracy averages recall over the classes with true rows, macro F1
        over the classes with true or predicted rows. The calibration error is that of Guo et al. 2017, arXiv
        1706.04599: over ten bins of confidence, (0, 0.1] .. (0.9, 1], the distance of accuracy from mean confidence,
        weighted by rows.
    """
    from scipy import sparse

    rows = np.arange(len(labels))
    hit = (labels == predicted).astype(np.float64)

    def sums(places: Int, value: Float, count: int) -> Float:
        counts: Float = sparse.csr_array((value, (places, rows)), shape=(count, len(rows))) @ weights_TB
        return counts

    total = weights_TB.sum(axis=0)
    true_KB = sums(labels, np.ones(len(rows)), num_classes)
    both_KB = true_KB + sums(predicted, np.ones(len(rows)), num_classes)
    hits_KB = sums(labels, hit, num_classes)
    # a confidence on an edge belongs below it
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    return {
        "accuracy": hit @ weights_TB / total,
        "balanced_accuracy": mean_of_ratios(hits_KB, true_KB),
        "macro_f1": mean_of_ratios(2 * hits_KB, both_KB),
        "log_loss": -np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1.0)) @ weights_TB / total,
        "calibration_error": np.abs(sums(bins, confidence - hit, BINS)).sum(axis=0) / total,
    }


def mean_of_ratios(part_KB: Float, whole_KB: Float) -> Float:
    """(B,) mean over the classes whose denominator is not zero; 0 where there is none."""
    ratio = np.divide(part_KB, whole_KB, out=np.zeros_like(part_KB), where=whole_KB > 0)
    mean: Float = ratio.sum(axis=0) / np.maximum((whole_KB > 0).sum(axis=0), 1)
    return mean


def answers(labels: Int, scores: Float) -> tuple[Int, Float, Float]:
    """Predicted classes (T,), and the probabilities that the true (T,) and the predicted (T,) ones were given.

    Args:
        labels: (T,) true classes.
        scores: (T, K) class probabilities.
    """
    index, predicted = np.arange(len(labels)), scores.argmax(axis=1)
    return predicted, scores[index, labels], scores[index, predicted]


def ranked(labels: Int, scores: Float) -> dict[str, float]:
    """`RANKED`: each class against the rest, means over the classes with true rows, and for AUROC false ones too.

    With two classes AUROC is the usual one, as both have the same; empty where all rows are of one class.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    present = np.unique(labels)
    if len(present) < 2:
        return {}
    pairs = [((labels == number).astype(np.int64), scores[:, number]) for number in present]
    return {
        "auroc": float(np.mean([roc_auc_score(is_class, values) for is_class, values in pairs])),
        "average_precision": float(np.mean([average_precision_score(is_class, values) for is_class, values in pairs])),
    }
