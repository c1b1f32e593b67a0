"""Gradient boosted trees, their number chosen on val: scikit-learn's `HistGradientBoostingClassifier`, one for each
class where a row may have several, and for numbers `HistGradientBoostingRegressor`.

Trees of 8 leaves on 63 bins a feature: with embeddings of hundreds of features the time goes into the search for
splits, one tree a class and round. A fit of 2,000 rows of 512 in ten classes took 6.8 s.
"""

from __future__ import annotations

import itertools
from typing import Any

from ssl_tasks.transfer.base import ALL_FITTED, FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.classical import Fitted, choose, from_numbers, from_probabilities
from ssl_tasks.transfer.one_vs_rest import OneVsRest, train_each
from ssl_tasks.transfer.targets import MULTI_LABEL, REGRESSION

ROUNDS = (5, 10, 20, 50, 100)
DEFAULT = 20
SETTINGS = {"max_leaf_nodes": 8, "max_bins": 63, "min_samples_leaf": 5, "early_stopping": False, "random_state": 0}
"""The random state is for binning above 200,000 rows."""


def fit(task: Task) -> Prediction:
    """The trees of the number of rounds that did best on val (`DEFAULT` where val has no labels)."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    most = ROUNDS[-1] if len(task.val_labels) else DEFAULT
    trees = HistGradientBoostingRegressor if task.task == REGRESSION else HistGradientBoostingClassifier

    def train(labels: Any) -> Any:
        return trees(max_iter=most, **SETTINGS).fit(task.train, labels)

    model = train_each(task.labels, train) if task.task == MULTI_LABEL else train(task.labels)
    # fewer rounds are the first of more: one fit serves all candidates
    rounds, fitted = choose(task, ROUNDS, DEFAULT, lambda count: _first(model, count, task))
    return Prediction(fitted.scores(task.test), {"rounds": float(rounds)})


def _first(model: Any, rounds: int, task: Task) -> Fitted:
    if isinstance(model, OneVsRest):
        first = [one and _Rounds(one, rounds) for one in model.models]
        return Fitted(OneVsRest(first, model.shares).scores)
    if task.task == REGRESSION:
        return from_numbers(_Numbers(model, rounds))
    return from_probabilities(_Rounds(model, rounds), task.num_classes)


class _Rounds:
    """The first rounds of a fitted model."""

    def __init__(self, model: Any, rounds: int) -> None:
        self.model, self.rounds, self.classes_ = model, rounds, model.classes_

    def predict_proba(self, rows: FloatArray) -> FloatArray:
        """(N, C) after these rounds."""
        scores: FloatArray = next(itertools.islice(self.model.staged_predict_proba(rows), self.rounds - 1, None))
        return scores


class _Numbers:
    """The first rounds of a fitted model of numbers."""

    def __init__(self, model: Any, rounds: int) -> None:
        self.model, self.rounds = model, rounds

    def predict(self, rows: FloatArray) -> FloatArray:
        """(N,) after these rounds."""
        numbers: FloatArray = next(itertools.islice(self.model.staged_predict(rows), self.rounds - 1, None))
        return numbers


STRATEGY = Strategy("gradient_boosting", "gradient boosted trees", fit, tasks=ALL_FITTED, slow=True)
