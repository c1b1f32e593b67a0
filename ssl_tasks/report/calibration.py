"""Whether the probabilities mean what they say: reliability diagram and expected calibration error.

Guo et al. 2017, arXiv 1706.04599: ten bins of equal width, (0, 0.1] .. (0.9, 1]; the error is the mean distance of a
bin's accuracy from its mean confidence, weighted by its predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_tasks.report.figures import Axis, Series, line_chart
from ssl_tasks.report.predictions import Fits
from ssl_tasks.report.units import percent, points

BINS = 10
LARGEST, SMALLEST = 9.0, 2.0
"""Radius of a mark that holds all predictions, and of one that holds hardly any."""

FEW, FEW_SHARE = 5, 0.005
"""Bins of fewer rows, or of a smaller share of them, are faint dots beside the line: their accuracy says nothing."""


@dataclass(frozen=True)
class Bin:
    """The predictions of one range of confidence."""

    low: float
    high: float
    count: int
    """Above 0."""
    confidence: float
    """Mean."""
    accuracy: float


def bins(fits: Fits) -> list[Bin]:
    """Those of the ten that hold predictions, all seeds together."""
    edges = np.arange(1, BINS) / BINS
    place = np.searchsorted(edges, fits.confidence, side="left")  # a confidence on an edge belongs below it
    found = []
    for number in range(BINS):
        here = place == number
        if here.any():
            confidence, accuracy = float(fits.confidence[here].mean()), float(fits.right[here].mean())
            found.append(Bin(number / BINS, (number + 1) / BINS, int(here.sum()), confidence, accuracy))
    return found


def expected_error(found: Sequence[Bin]) -> float:
    """ECE, from 0 to 1."""
    total = sum(one.count for one in found)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in found) / total


def section(budgets: Sequence[Fits]) -> list[dict[str, Any]]:
    """A diagram of each budget with its numbers, for the template."""
    return [_diagram(fits, bins(fits)) for fits in budgets]


def _diagram(fits: Fits, found: Sequence[Bin]) -> dict[str, Any]:
    total = sum(one.count for one in found)
    gap = sum(one.count * (one.confidence - one.accuracy) for one in found) / total
    few = max(FEW * fits.num_seeds, FEW_SHARE * total)
    firm, faint = ([one for one in found if (one.count < few) == is_few] for is_few in (False, True))
    lines = [
        Series("calibrated", "random", [(0.0, 0.0), (1.0, 1.0)]),
        Series(
            "encoder",
            "pretrained",
            [(one.confidence, one.accuracy) for one in firm],
            [(one.confidence, one.accuracy) for one in faint],
            radii=[max(SMALLEST, LARGEST * float(np.sqrt(one.count / total))) for one in firm],
        ),
    ]
    caption = f"With {fits.budget}: expected calibration error {percent(expected_error(found))}"
    return {
        "caption": caption,
        "svg": line_chart(caption, lines, _unit_axis("Confidence"), _unit_axis("Accuracy")),
        "tendency": f"{points(abs(gap))} too {'sure' if gap > 0 else 'unsure'}",
        "bins": [
            {
                "range": f"{100 * one.low:.0f} to {100 * one.high:.0f}%",
                "count": f"{one.count / fits.num_seeds:,.1f}",
                "confidence": percent(one.confidence),
                "accuracy": percent(one.accuracy),
            }
            for one in found
        ],
    }


def _unit_axis(label: str) -> Axis:
    return Axis(label, 0.0, 1.0, [(number / 5, f"{20 * number}%") for number in range(6)])
