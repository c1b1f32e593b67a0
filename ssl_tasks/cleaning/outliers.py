"""How unusual a sample is: its most unusual measure, in robust deviations from the median of all samples.

Medians come from histograms, so that memory does not grow with the rows. Nothing is fitted that later stages use:
outliers are flagged for a look and stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.schema import OUTLIERS, ROW

Float = NDArray[np.float64]

BINS = 4096
LEAST_DEVIATION = 0.02
"""On the 0..1 scale: where all pictures are alike, a small difference makes no outlier."""
GAUSSIAN = 1.4826
"""Median absolute deviation to standard deviation."""


class Outliers:
    """Two passes over the measures: `see` every part, then `score` every part."""

    def __init__(self, measures: Iterable[str]) -> None:
        self.counts = {name: np.zeros(BINS, np.int64) for name in measures}

    def see(self, table: pa.Table) -> None:
        """Count a part's values."""
        for name, counts in self.counts.items():
            bins = (_squeezed(table, name) * BINS).astype(np.int64).clip(0, BINS - 1)
            counts += np.bincount(bins, minlength=BINS)

    def score(self, table: pa.Table) -> pa.Table:
        """`schema.OUTLIERS` of a part."""
        deviations = np.stack([np.abs(_squeezed(table, name) - m) / d for name, (m, d) in self._centres().items()])
        worst = deviations.argmax(axis=0)
        names = pa.array(list(self.counts)).take(pa.array(worst))
        scores = deviations[worst, np.arange(len(worst))]
        return pa.table([table[ROW], pa.array(scores, pa.float32()), names], schema=OUTLIERS)

    def _centres(self) -> dict[str, tuple[float, float]]:
        """Median and robust deviation of each measure."""
        middle = (np.arange(BINS) + 0.5) / BINS
        found = {}
        for name, counts in self.counts.items():
            median = _weighted_median(middle, counts)
            deviation = GAUSSIAN * _weighted_median(np.abs(middle - median), counts)
            found[name] = (median, max(deviation, LEAST_DEVIATION))
        return found


def _squeezed(table: pa.Table, name: str) -> Float:
    """Values of 0 and more, on a scale below 1 whose tail is short: a power of a small number is no outlier."""
    values = np.sqrt(np.maximum(table[name].to_numpy().astype(np.float64), 0))
    squeezed: Float = values / (1 + values)
    return squeezed


def _weighted_median(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(counts[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
