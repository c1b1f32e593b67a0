"""What a task means for a fit's scores: which metrics there are, and what is kept of every test row for them.

    kind = of("regression")
    kind.score(numbers, predicted)["rmse"]

Every kind gives its metrics by the same lines for the value (all weights 1) and for its bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer import located, metrics, multi_label, regression, retrieved, segmented
from ssl_tasks.transfer.targets import (
    CLASSIFICATION,
    LOCALIZATION,
    MULTI_LABEL,
    REGRESSION,
    RETRIEVAL,
    SEGMENTATION,
)

Float = NDArray[np.float64]
Labels = NDArray[Any]
Answers = tuple[NDArray[Any], Float, Float]
"""Of each test row: what was predicted, and for classes the likelihood of the true one and of the predicted one."""

LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "hamming_loss", "rmse", "mae"})

IN_UNITS = frozenset({"rmse", "mae"})
"""Metrics in the unit of the numbers that are predicted; all others but log loss and R2 are shares."""


def _scores(labels: Labels, scores: Float) -> Answers:
    return scores, np.zeros(0), np.zeros(0)


def _nothing(labels: Labels, scores: Float) -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class Kind:
    """One of `targets.TASKS`."""

    metrics: tuple[str, ...]
    """Those that get an interval; the first is what is chosen by where the recipe names none."""
    choices: tuple[str, ...]
    """Those that may be chosen by on val, and that summary and verdict may speak of."""
    tie: str
    """What decides on val where the chosen metric is equal."""
    strategies: tuple[str, ...]
    """What runs where the recipe lists none."""
    weighted: Callable[..., dict[str, Float]]
    """As `metrics.weighted`."""
    answers: Callable[[Labels, Float], Answers] = _scores
    """From targets and scores to what is kept of the rows."""
    ranked: Callable[[Labels, Float], dict[str, float]] = _nothing
    """Metrics without an interval, from targets and scores."""
    fitted: Callable[[Labels, Float], dict[str, float]] = _nothing
    """How well scores of the fit's own labelled rows agree with these: 1 is entirely."""

    def score(self, labels: Labels, scores: Float) -> dict[str, float]:
        """Every one of `metrics`; T must not be 0."""
        assert len(labels), "no rows to score"
        values = self.weighted(labels, *self.answers(labels, scores), np.ones((len(labels), 1)), scores.shape[1])
        return {name: float(value[0]) for name, value in values.items()}

    def merit(self, labels: Labels, scores: Float, metric: str) -> tuple[float, float]:
        """What to maximize over candidates."""
        values = self.score(labels, scores)
        return oriented(metric, values[metric]), oriented(self.tie, values[self.tie])


def oriented(metric: str, value: float) -> float:
    """So that more is better."""
    return -value if metric in LOWER_IS_BETTER else value


def of(task: str) -> Kind:
    """The kind of a task."""
    return KINDS[task]


KINDS = {
    CLASSIFICATION: Kind(
        metrics=metrics.METRICS,
        choices=metrics.HIGHER_IS_BETTER,
        tie="log_loss",
        strategies=("linear_probe", "knn"),
        answers=metrics.answers,
        weighted=metrics.weighted,
        ranked=metrics.ranked,
        fitted=lambda labels, scores: {"train_accuracy": float((scores.argmax(axis=1) == labels).mean())},
    ),
    MULTI_LABEL: Kind(
        metrics=multi_label.METRICS,
        choices=("macro_f1", "micro_f1", "subset_accuracy", "hamming_loss"),
        tie="log_loss",
        strategies=("linear_probe", "knn"),
        weighted=multi_label.weighted,
        ranked=multi_label.ranked,
        fitted=lambda labels, scores: {"train_accuracy": multi_label.subset_accuracy(labels, scores)},
    ),
    REGRESSION: Kind(
        metrics=regression.METRICS,
        choices=regression.METRICS,
        tie="rmse",
        strategies=("ridge", "knn"),
        answers=lambda labels, scores: (scores[:, 0], np.zeros(0), np.zeros(0)),
        weighted=regression.weighted,
        fitted=lambda labels, scores: {"train_r2": regression.r2(labels, scores[:, 0])},
    ),
    RETRIEVAL: Kind(
        metrics=retrieved.METRICS,
        choices=retrieved.METRICS,
        tie="mean_average_precision",
        strategies=("retrieval",),
        weighted=retrieved.weighted,
    ),
    SEGMENTATION: Kind(
        metrics=segmented.METRICS,
        choices=segmented.METRICS,
        tie="pixel_accuracy",
        strategies=("segmentation",),
        weighted=segmented.weighted,
        ranked=segmented.per_class,
    ),
    LOCALIZATION: Kind(
        metrics=located.METRICS,
        choices=located.METRICS,
        tie="mean_box_iou",
        strategies=("boxes",),
        weighted=located.weighted,
    ),
}
