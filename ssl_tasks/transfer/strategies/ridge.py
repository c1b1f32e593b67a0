"""Ridge regression, its penalty chosen on val: scikit-learn's `Ridge`, for classes `RidgeClassifier`.

It solves one linear system where logistic regression iterates. Of numbers it predicts these. Classes are -1 or 1 each,
and its decision values no probabilities: these are their softmax over a temperature (`classical.from_decisions`).
Where a row may have several classes, they are 0 or 1, and what it predicts is cut off at these.
"""

from __future__ import annotations

import numpy as np

from ssl_tasks.transfer import classical
from ssl_tasks.transfer.base import ALL_FITTED, FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, from_decisions
from ssl_tasks.transfer.strategies.linear_probe import standardize
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL

ALPHAS = (1e5, 1e4, 1e3, 100.0, 10.0, 1.0, 0.1)
DEFAULT = 100.0


def fit(task: Task) -> Prediction:
    """The model of the alpha that did best on val (`DEFAULT` where val has no labels)."""
    alpha, fitted = choose(task)
    return Prediction(fitted.scores(task.test), {"alpha": alpha, **fitted.facts})


def choose(task: Task) -> tuple[float, Fitted]:
    """The alpha and the fitted model."""
    from sklearn.linear_model import Ridge, RidgeClassifier

    def train(alpha: float) -> Fitted:
        if task.task == CLASSIFICATION:
            return from_decisions(RidgeClassifier(alpha=alpha).fit(task.train, task.labels), task)
        model = Ridge(alpha=alpha).fit(task.train, task.labels.reshape(len(task.labels), -1))

        def scores(rows: FloatArray) -> FloatArray:
            values: FloatArray = model.predict(rows).reshape(len(rows), -1)  # of one column it forgets the second axis
            return np.clip(values, 0.0, 1.0) if task.task == MULTI_LABEL else values

        return Fitted(scores, model=model)

    return classical.choose(task, ALPHAS, DEFAULT, train)


STRATEGY = Strategy("ridge", "ridge regression", fit, prepare=standardize, tasks=ALL_FITTED)
