"""Ridge regression on the classes, -1 or 1 each, its penalty chosen on val: scikit-learn's `RidgeClassifier`.

It solves one linear system where logistic regression iterates. Its decision values are no probabilities: these are
their softmax over a temperature (`classical.from_decisions`).
"""

from __future__ import annotations

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_decisions
from ssl_tasks.transfer.linear_probe import standardize

ALPHAS = (1e5, 1e4, 1e3, 100.0, 10.0, 1.0, 0.1)
DEFAULT = 100.0


def fit(task: Task) -> Prediction:
    """The classifier of the alpha that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.linear_model import RidgeClassifier

    def train(alpha: float) -> Fitted:
        return from_decisions(RidgeClassifier(alpha=alpha).fit(task.train, task.labels), task)

    alpha, fitted = choose(task, ALPHAS, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"alpha": alpha, **fitted.facts})


STRATEGY = Strategy("ridge", "a ridge classifier", fit, prepare=standardize)
