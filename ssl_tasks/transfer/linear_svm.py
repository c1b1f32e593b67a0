"""A linear support vector machine, one class against the rest, its C chosen on val: scikit-learn's `LinearSVC`.

The primal problem (squared hinge) is solved, which draws no random numbers. Its decision values are no probabilities:
these are their softmax over a temperature (`classical.from_decisions`).
"""

from __future__ import annotations

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_decisions
from ssl_tasks.transfer.linear_probe import standardize

STRENGTHS = (1e-4, 1e-3, 0.01, 0.1, 1.0)
DEFAULT = 0.01


def fit(task: Task) -> Prediction:
    """The machine of the C that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.svm import LinearSVC

    def train(strength: float) -> Fitted:
        return from_decisions(LinearSVC(C=strength, dual=False).fit(task.train, task.labels), task)

    strength, fitted = choose(task, STRENGTHS, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"C": strength, **fitted.facts})


STRATEGY = Strategy("linear_svm", "a linear support vector machine", fit, prepare=standardize)
