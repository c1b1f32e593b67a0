"""A linear support vector machine, one class against the rest, its C chosen on val: scikit-learn's `LinearSVC`.

The squared hinge is minimized: while C is small by coordinate descent in the dual, which then takes a quarter of the
primal's time, and by Newton's method in the primal where C is larger (`DUAL`). Time grows with C, so the search ends
once two candidates in a row have not bettered the one before. Decision values are no probabilities: these are their
softmax over a temperature (`classical.from_decisions`).
"""

from __future__ import annotations

from typing import Any

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_decisions
from ssl_tasks.transfer.linear_probe import standardize

STRENGTHS = (1e-4, 1e-3, 0.01, 0.1, 1.0)
DEFAULT = 0.01
PATIENCE = 2
DUAL = 10.0
"""Largest C times features, which is about C times a row's squared length, for the dual. On 4,000 rows of 512 in ten
classes the dual took 0.5, 1.0, 2.4 and 7.3 s (where it had not converged) for C of 0.0001 to 0.1, the primal 3.1, 4.0,
4.1 and 4.5 s; where both converged no decision value differed by more than 0.0002."""


def fit(task: Task) -> Prediction:
    """The machine of the C that did best on val (`DEFAULT` where val has no labels)."""

    def train(strength: float) -> Fitted:
        return from_decisions(machine(strength, task.train.shape[1]).fit(task.train, task.labels), task)

    strength, fitted = choose(task, STRENGTHS, DEFAULT, train, PATIENCE)
    return Prediction(fitted.scores(task.test), {"C": strength, **fitted.facts})


def machine(strength: float, num_features: int) -> Any:
    """The `LinearSVC` of this C, not fitted. The order of its coordinates is drawn from the same state every time."""
    from sklearn.svm import LinearSVC

    return LinearSVC(C=strength, dual=strength * num_features <= DUAL, random_state=0)


STRATEGY = Strategy("linear_svm", "a linear support vector machine", fit, prepare=standardize, version=2)
