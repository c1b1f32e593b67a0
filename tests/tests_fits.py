"""Predictions made by hand, as the report reads them."""

from collections.abc import Sequence

import numpy as np

from ssl_tasks.report.predictions import Fits


def fits(
    truth: Sequence[int],
    predicted: Sequence[int],
    classes: Sequence[str] = ("cat", "dog", "owl"),
    confidence: Sequence[float] | None = None,
    seeds: int = 1,
) -> Fits:
    """The rows of one seed after those of another, numbered from 0."""
    rows = np.tile(np.arange(len(truth) // seeds), seeds)
    given = np.full(len(truth), 0.5) if confidence is None else np.array(confidence)
    return Fits("all labels (9)", seeds, list(classes), rows, np.array(truth), np.array(predicted), given)
