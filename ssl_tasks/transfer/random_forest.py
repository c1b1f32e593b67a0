"""A random forest of 100 trees, the size of its leaves chosen on val: scikit-learn's `RandomForestClassifier`.

One forest for 2,000 rows of 512 took 2.6 s.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_probabilities

TREES = 100
LEAVES = (5, 1)
"""Least rows of a leaf."""
DEFAULT = 1
SEEDS = 2**32
"""scikit-learn takes smaller ones only."""


def fit(task: Task) -> Prediction:
    """The forest of the leaves that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.ensemble import RandomForestClassifier

    def train(rows: int) -> Fitted:
        model = RandomForestClassifier(TREES, min_samples_leaf=rows, random_state=task.seed % SEEDS)
        return from_probabilities(model.fit(task.train, task.labels), task.num_classes)

    rows, fitted = choose(task, LEAVES, DEFAULT, train)
    return Prediction(fitted.scores(task.test), {"leaf_rows": float(rows)})


STRATEGY = Strategy("random_forest", "a random forest", fit, seeded=True, slow=True)
