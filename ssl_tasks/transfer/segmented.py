"""Metrics of predicted masks under image weights: the same lines give the value and its bootstrap replicates.

Of each image the pixels of every class are kept, those that are it, those that were said to be it, and those that are
both: sums of these over images give what all images together have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.metrics import mean_of_ratios

Float = NDArray[np.float64]
Mask = NDArray[np.uint8]

METRICS = ("mean_iou", "pixel_accuracy", "mean_class_accuracy")
IGNORED = 255
ROWS = 64
"""Images counted at once."""


def counts(truth: Mask, predicted: Mask, num_classes: int) -> Float:
    """(T, 3 K) numbers of pixels of each image: of each class those right, those that are it, those predicted so.

    Args:
        truth: (T, H, W) classes; where it is `IGNORED`, nothing is counted.
        predicted: (T, H, W) classes below `num_classes`.
    """
    slices = [slice(at, at + ROWS) for at in range(0, len(truth), ROWS)]
    parts = [_counts(truth[part], predicted[part], num_classes) for part in slices]
    return np.concatenate([*parts, np.zeros((0, 3 * num_classes))])


def _counts(truth: Mask, predicted: Mask, num_classes: int) -> Float:
    rows, known = len(truth), truth != IGNORED
    image = np.broadcast_to(np.arange(rows)[:, None, None], truth.shape)
    pairs = (image[known] * num_classes + truth[known]) * num_classes + predicted[known]
    confusion = np.bincount(pairs, minlength=rows * num_classes**2).reshape(rows, num_classes, num_classes)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    return np.concatenate([right, confusion.sum(axis=2), confusion.sum(axis=1)], axis=1).astype(np.float64)


def weighted(
    truth: Any, counted: Float, likelihood: Float, confidence: Float, weights_TB: Float, num_classes: int
) -> dict[str, Float]:
    """Every metric for each column of weights.

    Args:
        counted: (T, 3 K), as `counts` gives them.
        truth, likelihood, confidence, num_classes: not looked at.
        weights_TB: (T, B) how often each image counts in each of B replicates.

    Returns:
        (B,) for each of `METRICS`: intersection over union averaged over the classes that are or were predicted
        anywhere (Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015, section
        4.2; macro Jaccard index), the share of pixels that are right, and recall averaged over the classes there are.
    """
    right, true, said = (part.T @ weights_TB for part in np.split(counted, 3, axis=1))
    return {
        "mean_iou": mean_of_ratios(right, true + said - right),
        "pixel_accuracy": right.sum(axis=0) / np.maximum(true.sum(axis=0), 1.0),
        "mean_class_accuracy": mean_of_ratios(right, true),
    }


def per_class(truth: Any, counted: Float) -> dict[str, float]:
    """Intersection over union of every class that is or was predicted anywhere, as `iou_<number>`."""
    right, true, said = np.split(counted.sum(axis=0), 3)
    union = true + said - right
    return {f"iou_{k}": float(right[k] / union[k]) for k in np.flatnonzero(union)}
