"""Metrics of predicted numbers under row weights: the same lines give the value and its bootstrap replicates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

METRICS = ("rmse", "mae", "r2")


def weighted(
    numbers: Float, predicted: Float, likelihood: Float, confidence: Float, weights_TB: Float, num_outputs: int
) -> dict[str, Float]:
    """Every metric for each column of weights, as scikit-learn defines them.

    Args:
        numbers: (T,) true ones.
        predicted: (T,).
        likelihood, confidence, num_outputs: of classes, and not looked at.
        weights_TB: (T, B) how often each row counts in each of B replicates.

    Returns:
        (B,) for each of `METRICS`: root of the mean squared error and mean absolute error, in the numbers' unit; R2,
        the share of their variance that is explained, which is 1 where all rows are one number and each is hit, and 0
        where they are and one is missed.
    """
    error, total = predicted - numbers, weights_TB.sum(axis=0)
    squares = error**2 @ weights_TB
    centred = numbers - numbers.mean()  # else squares of large numbers would cancel
    mean = centred @ weights_TB / total
    spread = np.maximum(centred**2 @ weights_TB - total * mean**2, 0.0)
    constant = np.where(squares > 0, 0.0, 1.0)
    is_spread = spread > 1e-12 * (centred**2 @ weights_TB)
    return {
        "rmse": np.sqrt(squares / total),
        "mae": np.abs(error) @ weights_TB / total,
        "r2": np.where(is_spread, 1.0 - squares / np.where(is_spread, spread, 1.0), constant),
    }


def r2(numbers: Float, predicted: Float) -> float:
    """R2 of unweighted rows."""
    nothing = np.zeros(0)
    return float(weighted(numbers, predicted, nothing, nothing, np.ones((len(numbers), 1)), 1)["r2"][0])
