"""Metrics of one predicted box an image, under image weights: the same lines give value and bootstrap replicates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

METRICS = ("mean_box_iou", "iou_over_half")


def intersection_over_union(first: Float, second: Float) -> Float:
    """(T,) of boxes (T, 4) of x, y, width and height, row by row; 0 where a box has no area."""
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    inside = (high - low).clip(0).prod(axis=1)
    union = first[:, 2:].clip(0).prod(axis=1) + second[:, 2:].clip(0).prod(axis=1) - inside
    shares: Float = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return shares


def weighted(
    truth: Float, predicted: Float, likelihood: Float, confidence: Float, weights_TB: Float, num_outputs: int
) -> dict[str, Float]:
    """Every metric for each column of weights.

    Args:
        truth, predicted: (T, 4) boxes.
        likelihood, confidence, num_outputs: of classes, and not looked at.
        weights_TB: (T, B) how often each image counts in each of B replicates.

    Returns:
        (B,) for each of `METRICS`: intersection over union of the predicted box with the true one, averaged over
        images, and the share of images where it is above 0.5, which is what counts as found (Russakovsky et al.,
        "ImageNet Large Scale Visual Recognition Challenge", arXiv 1409.0575, section 4.2).
    """
    iou, total = intersection_over_union(predicted, truth), weights_TB.sum(axis=0)
    return {"mean_box_iou": iou @ weights_TB / total, "iou_over_half": (iou > 0.5) @ weights_TB / total}
