"""A support vector machine with a Gaussian kernel, its C chosen on val: scikit-learn's `SVC`.

The kernel's width is scikit-learn's `scale`: gamma = 1 / (D * variance). Its decision values are no probabilities:
these are their softmax over a temperature (`classical.from_decisions`). Time grows with the square of the rows: one
fit of 2,000 rows of 512 took 0.6 s, and scoring 1,000 more 0.3 s.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_decisions
from ssl_tasks.transfer.strategies.linear_probe import standardize

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
DEFAULT = 1.0


def fit(task: Task) -> Prediction:
    """The machine of the C that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.svm import SVC

    def train(strength: float) -> Fitted:
        # with break_ties what it predicts is the class of the largest decision value
        return from_decisions(SVC(C=strength, break_ties=True).fit(task.train, task.labels), task)

    strength, fitted = choose(task, STRENGTHS, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"C": strength, **fitted.facts})


STRATEGY = Strategy("rbf_svm", "a support vector machine with a Gaussian kernel", fit, prepare=standardize, slow=True)
