"""Logistic regression on frozen embeddings, its strength of regularization chosen on val.

Embeddings are standardized by all train rows, labelled or not, so that 13 labelled rows do not have to say
what the scale of a feature is. scikit-learn's `LogisticRegression` (L-BFGS) does the fit. Where a row may have several
classes, each has a regression of its own against the rest, all with one strength.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_tasks.transfer.base import FloatArray, IntArray, Map, Prediction, Strategy, Task
from ssl_tasks.transfer.one_vs_rest import OneVsRest, train_each
from ssl_tasks.transfer.rows import Moments
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
DEFAULT = 0.1
MAX_ITERATIONS = 1000


def fit(task: Task) -> Prediction:
    """The classifier of the C that did best on val (`DEFAULT` where val has no labels)."""
    model, strength, converged = choose(task)
    return Prediction(_scores(model, task.test, task.num_classes), {"C": strength, "converged": converged})


def choose(task: Task) -> tuple[Any, float, float]:
    """The fitted `LogisticRegression`, or `OneVsRest` for several classes, its C, and 1.0 where it converged."""
    if not len(task.val_labels):
        model, converged = _train(task, DEFAULT)
        return model, DEFAULT, converged
    fitted = {strength: _train(task, strength) for strength in STRENGTHS}
    best = max(STRENGTHS, key=lambda c: (*task.val_score(_scores(fitted[c][0], task.val, task.num_classes)), -c))
    return fitted[best][0], best, fitted[best][1]


def standardize(train: Moments) -> Map:
    """Subtract the mean and divide by the standard deviation of the train rows; a constant feature becomes 0."""
    mean, std = train.mean(axis=0), train.std(axis=0)
    scale = np.where(std > 1e-8 * np.maximum(1.0, np.abs(mean)), std, np.inf)

    def prepared(rows: FloatArray) -> FloatArray:
        moved: FloatArray = rows - mean
        moved /= scale  # in place: a table of all rows is hundreds of megabytes
        return moved

    return prepared


def _train(task: Task, strength: float) -> tuple[Any, float]:
    from sklearn.linear_model import LogisticRegression

    def train(labels: IntArray) -> Any:
        return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(task.train, labels)

    model = train_each(task.labels, train) if task.task == MULTI_LABEL else train(task.labels)
    steps = [one.n_iter_.max() for one in (model.models if isinstance(model, OneVsRest) else [model]) if one]
    return model, float(max(steps, default=0) < MAX_ITERATIONS)


def _scores(model: Any, rows: FloatArray, num_classes: int) -> FloatArray:
    """(T, K) probabilities; a class that the fit never saw has none."""
    if isinstance(model, OneVsRest):
        return model.scores(rows)
    scores = np.zeros((len(rows), num_classes))
    scores[:, model.classes_] = model.predict_proba(rows)
    return scores


STRATEGY = Strategy(
    "linear_probe", "a linear probe", fit, prepare=standardize, tasks=frozenset({CLASSIFICATION, MULTI_LABEL})
)
