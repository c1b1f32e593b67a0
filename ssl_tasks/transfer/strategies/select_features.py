"""A linear probe on the few features of all encoders that matter most; how many is chosen on val.

Features are ranked by the norm of their coefficients over the classes, in a logistic regression on the labelled train
rows: one step of the recursive elimination of Guyon et al., "Gene Selection for Cancer Classification using Support
Vector Machines" (Machine Learning 2002, section 2.3); for several classes or numbers in a ridge regression on these.
scikit-learn's `SelectFromModel` takes the first ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.several import Probed, probe
from ssl_tasks.transfer.strategies import linear_probe, ridge
from ssl_tasks.transfer.strategies.linear_probe import DEFAULT, MAX_ITERATIONS
from ssl_tasks.transfer.targets import CLASSIFICATION

NUMBERS = (16, 64, 256)
"""Candidates; a number that is not below that of all features stands for all of them."""


def fit(task: Task) -> Prediction:
    """The probe on as many features as did best on val (the middle number where val has no labels).

    Of its facts `features` is that number, and `from 0` how many of them the run's own encoder gives.
    """
    total = task.train.shape[1]
    numbers = sorted({min(number, total) for number in NUMBERS})
    if not len(task.val_labels):
        numbers = [numbers[len(numbers) // 2]]
    masks = select(task, numbers)
    probes = [probe(_only(task, mask)) for mask in masks]
    best = max(range(len(numbers)), key=lambda place: _merit(task, probes[place])) if len(numbers) > 1 else 0
    of_each = np.split(masks[best], np.cumsum(task.widths)[:-1])
    facts = {f"from {place}": float(part.sum()) for place, part in enumerate(of_each)}
    return Prediction(probes[best].test, {"features": float(numbers[best])} | facts | probes[best].chosen)


def select(task: Task, numbers: list[int]) -> list[NDArray[np.bool_]]:
    """For each number the features (D,) that are taken; a larger choice contains the smaller."""
    from sklearn.feature_selection import SelectFromModel
    from sklearn.linear_model import LogisticRegression, Ridge

    is_one_class = task.task == CLASSIFICATION
    model = LogisticRegression(C=DEFAULT, max_iter=MAX_ITERATIONS) if is_one_class else Ridge(alpha=ridge.DEFAULT)
    ranking = model.fit(task.train, task.labels)
    selectors = (
        SelectFromModel(ranking, prefit=True, max_features=n, threshold=-np.inf, norm_order=2) for n in numbers
    )
    return [selector.fit(task.train).get_support() for selector in selectors]


def _merit(task: Task, probed: Probed) -> tuple[float, float]:
    return task.val_score(probed.val)


def _only(task: Task, mask: NDArray[np.bool_]) -> Task:
    return replace(task, train=task.train[:, mask], val=task.val[:, mask], test=task.test[:, mask])


STRATEGY = Strategy(
    "select_features",
    "a linear probe on selected features of all encoders",
    fit,
    prepare=linear_probe.standardize,
    tasks=ALL_FITTED,
    encoders="several",
    counterpart="best_encoder",
)
