"""A random forest of 100 trees, the size of its leaves chosen on val: scikit-learn's `RandomForestClassifier`, for
numbers `RandomForestRegressor`.

One forest for 2,000 rows of 512 took 2.6 s.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_tasks.transfer.base import ALL_FITTED, FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_numbers, from_probabilities
from ssl_tasks.transfer.targets import CLASSIFICATION, REGRESSION

TREES = 100
LEAVES = (5, 1)
"""Least rows of a leaf."""
DEFAULT = 1
SEEDS = 2**32
"""scikit-learn takes smaller ones only."""


def fit(task: Task) -> Prediction:
    """The forest of the leaves that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = RandomForestRegressor if task.task == REGRESSION else RandomForestClassifier

    def train(rows: int) -> Fitted:
        model = forest(TREES, min_samples_leaf=rows, random_state=task.seed % SEEDS).fit(task.train, _targets(task))
        if task.task == REGRESSION:
            return from_numbers(model)
        if task.task == CLASSIFICATION or task.num_classes == 1:
            return _of_classes(model, task)
        return Fitted(lambda rows: _several(model, rows))

    rows, fitted = choose(task, LEAVES, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"leaf_rows": float(rows)})


def _targets(task: Task) -> Any:
    """(N,) or (N, K): a forest takes several classes at once, but no table of one column."""
    return task.labels.ravel() if task.num_classes == 1 else task.labels


def _of_classes(model: Any, task: Task) -> Fitted:
    if task.task == CLASSIFICATION:
        return from_probabilities(model, task.num_classes)
    return Fitted(lambda rows: _of_one(model.predict_proba(rows), model.classes_)[:, None])


def _several(model: Any, rows: FloatArray) -> FloatArray:
    """(N, K) probability of each class by itself."""
    pairs = zip(model.predict_proba(rows), model.classes_, strict=True)
    return np.stack([_of_one(scores, classes) for scores, classes in pairs], axis=1)


def _of_one(scores_NC: FloatArray, classes: Any) -> FloatArray:
    """(N,) probability of 1, where the fit may have seen 0 or 1 only."""
    found: FloatArray = scores_NC[:, -1] if classes[-1] == 1 else np.zeros(len(scores_NC))
    return found


STRATEGY = Strategy("random_forest", "a random forest", fit, tasks=ALL_FITTED, seeded=True, slow=True)
