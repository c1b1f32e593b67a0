"""What became of the fits of a transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.base import FloatArray


@dataclass(frozen=True)
class Cell:
    """Which fit it is."""

    strategy: str
    method: str
    label_fraction: float
    """Of all labelled train rows, also where the budget is a number a class."""
    labels_per_class: int
    """0 where the budget is a fraction."""
    seed: int


@dataclass(frozen=True)
class Fit(Cell):
    """One fit and what became of the labelled test rows."""

    num_labels: int
    predicted: NDArray[Any]
    """(T,) classes, or numbers; for `multi_label` (T, K) probabilities, for `retrieval` (T, M) measures, for
    `segmentation` (T, 3 K) counts of pixels, for `localization` (T, 4) boxes."""
    confidence: FloatArray
    """(T,) probability of the predicted class; of other tasks nothing."""
    likelihood: FloatArray
    """(T,) probability of the true class; of other tasks nothing."""
    values: dict[str, float]
    chosen: dict[str, float]
    text: str = ""
    examples: NDArray[np.uint8] | None = None
    """(E, H, W) predicted masks of the first test rows."""
    seconds: float = 0.0
    """Of the fit, on one thread; 0 where another seed's fit on the same rows was shared."""


@dataclass(frozen=True)
class Failure(Cell):
    """A fit that failed."""

    error: str
