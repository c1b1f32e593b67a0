"""Metrics where a row may have several classes: the same lines give the value and its bootstrap replicates.

A class is predicted where its probability is above one half. `ranked` has the metrics that sort all rows for every
class, which is too much for thousands of replicates: they carry no interval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

METRICS = ("macro_f1", "micro_f1", "subset_accuracy", "hamming_loss", "log_loss")
RANKED = ("mean_average_precision", "auroc")
THRESHOLD = 0.5


def weighted(
    labels_TK: Int, scores_TK: Float, likelihood: Float, confidence: Float, weights_TB: Float, num_classes: int
) -> dict[str, Float]:
    """Every metric for each column of weights, as scikit-learn defines them.

    Args:
        labels_TK: (T, K) 1 where a row has the class, else 0.
        scores_TK: (T, K) probability of each class.
        likelihood, confidence, num_classes: of single classes, and not looked at.
        weights_TB: (T, B) how often each row counts in each of B replicates.

    Returns:
        (B,) for each of `METRICS`. Macro F1 is the mean over the classes that a row has or that are predicted for one,
        micro F1 that of all decisions together, 0 where there is none; subset accuracy is the share of rows with
        exactly the right classes, Hamming loss that of wrong decisions, log loss the mean over all decisions.
    """
    true, called = labels_TK == 1, scores_TK > THRESHOLD
    total, classes = weights_TB.sum(axis=0), labels_TK.shape[1]
    hits_KB = (true & called).T.astype(np.float64) @ weights_TB
    both_KB = true.T.astype(np.float64) @ weights_TB + called.T.astype(np.float64) @ weights_TB
    ratio_KB = np.divide(2 * hits_KB, both_KB, out=np.zeros_like(hits_KB), where=both_KB > 0)
    wrong = (true != called).mean(axis=1)
    given = np.clip(np.where(true, scores_TK, 1.0 - scores_TK), np.finfo(np.float64).eps, 1.0)
    return {
        "macro_f1": ratio_KB.sum(axis=0) / np.maximum((both_KB > 0).sum(axis=0), 1),
        "micro_f1": 2 * hits_KB.sum(axis=0) / np.maximum(both_KB.sum(axis=0), 1.0),
        "subset_accuracy": (wrong == 0).astype(np.float64) @ weights_TB / total,
        "hamming_loss": wrong @ weights_TB / total,
        "log_loss": -np.log(given).sum(axis=1) / classes @ weights_TB / total,
    }


def ranked(labels_TK: Int, scores_TK: Float) -> dict[str, float]:
    """`RANKED`: means over the classes that some rows have, and for AUROC others have not; else absent."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    share = (labels_TK == 1).mean(axis=0)
    there, both = np.flatnonzero(share > 0), np.flatnonzero((share > 0) & (share < 1))
    found = {}
    if len(there):
        values = [average_precision_score(labels_TK[:, k], scores_TK[:, k]) for k in there]
        found["mean_average_precision"] = float(np.mean(values))
    if len(both):
        found["auroc"] = float(np.mean([roc_auc_score(labels_TK[:, k], scores_TK[:, k]) for k in both]))
    return found


def subset_accuracy(labels_TK: Int, scores_TK: Float) -> float:
    """Share of rows with exactly the right classes."""
    return float(((labels_TK == 1) == (scores_TK > THRESHOLD)).all(axis=1).mean())
