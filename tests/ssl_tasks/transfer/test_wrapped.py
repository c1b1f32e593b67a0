"""Numbers and several classes: scikit-learn's results, reproduced where our code wraps it; metrics against its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsRegressor

from ssl_tasks.transfer import kinds, multi_label, regression, retrieved
from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.bootstrap import group_weights
from ssl_tasks.transfer.strategies import gradient_boosting, knn, linear_probe, ridge
from ssl_tasks.transfer.strategies import random_forest as forest

ROWS, WIDTH, CLASSES = 80, 7, 4


def values(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, numbers, and several classes."""
    random = np.random.default_rng(seed)
    rows_ND = random.normal(size=(rows, WIDTH))
    numbers = rows_ND @ np.arange(WIDTH) + random.normal(size=rows)
    return rows_ND, numbers, (rows_ND[:, :CLASSES] + random.normal(size=(rows, CLASSES)) > 0.4).astype(np.int64)


def task(kind: str, val: int = 0) -> Task:
    (train, *of_train), (held, *of_val), (test, *_) = values(ROWS, 0), values(val, 1), values(50, 2)
    place, outputs = (0, 1) if kind == "regression" else (1, CLASSES)
    metric = kinds.of(kind).choices[0]
    return Task(train, of_train[place], held, of_val[place], test, outputs, seed=3, metric=metric, task=kind)


def test_ridge_of_numbers_is_scikit_learns() -> None:
    given = task("regression")
    model = Ridge(alpha=ridge.DEFAULT).fit(given.train, given.labels)
    np.testing.assert_array_equal(ridge.fit(given).scores[:, 0], model.predict(given.test))


def test_ridge_chooses_the_alpha_that_is_best_on_val() -> None:
    given = task("regression", val=40)
    errors = {
        alpha: np.mean((Ridge(alpha=alpha).fit(given.train, given.labels).predict(given.val) - given.val_labels) ** 2)
        for alpha in ridge.ALPHAS
    }
    assert ridge.fit(given).chosen["alpha"] == min(errors, key=errors.__getitem__)


def test_knn_of_numbers_is_scikit_learns() -> None:
    given = task("regression")
    unit = knn.unit_length(given.train)
    model = KNeighborsRegressor(knn.DEFAULT, metric="cosine").fit(given.train, given.labels)
    ours = knn.fit(
        Task(unit(given.train), given.labels, given.val, given.val_labels, unit(given.test), 1, 0, task="regression")
    )
    np.testing.assert_allclose(ours.scores[:, 0], model.predict(given.test))


def test_a_probe_of_several_classes_is_scikit_learns() -> None:
    given = task("multi_label")
    base = LogisticRegression(C=linear_probe.DEFAULT, max_iter=linear_probe.MAX_ITERATIONS)
    model = OneVsRestClassifier(base).fit(given.train, given.labels)
    np.testing.assert_array_equal(linear_probe.fit(given).scores, model.predict_proba(given.test))


def test_forests_and_boosting_are_scikit_learns() -> None:
    numbers, several = task("regression"), task("multi_label")
    options: dict[str, Any] = {"min_samples_leaf": forest.DEFAULT, "random_state": 3}
    model = RandomForestRegressor(forest.TREES, **options).fit(numbers.train, numbers.labels)
    np.testing.assert_array_equal(forest.fit(numbers).scores[:, 0], model.predict(numbers.test))
    trees = RandomForestClassifier(forest.TREES, **options).fit(several.train, several.labels)
    theirs = np.stack([scores[:, 1] for scores in trees.predict_proba(several.test)], axis=1)
    np.testing.assert_array_equal(forest.fit(several).scores, theirs)
    boosted = HistGradientBoostingRegressor(max_iter=gradient_boosting.DEFAULT, **gradient_boosting.SETTINGS)
    boosted.fit(numbers.train, numbers.labels)
    np.testing.assert_array_equal(gradient_boosting.fit(numbers).scores[:, 0], boosted.predict(numbers.test))


def weights(rows: int) -> np.ndarray:
    """(T, B) of groups of two, as the bootstrap draws them."""
    return np.concatenate([*group_weights(np.arange(rows) // 2, 20, 0)], axis=1)


def test_metrics_of_numbers_are_scikit_learns_under_every_replicate() -> None:
    random = np.random.default_rng(0)
    truth = 1e6 + random.normal(size=60)  # R2 must not drown in the squares of large numbers
    predicted = truth + random.normal(size=60)
    nothing, weights_TB = np.zeros(0), weights(60)
    found = regression.weighted(truth, predicted, nothing, nothing, weights_TB, 1)
    for b, weight in enumerate(weights_TB.T):
        assert found["rmse"][b] ** 2 == pytest.approx(
            reference.mean_squared_error(truth, predicted, sample_weight=weight)
        )
        assert found["mae"][b] == pytest.approx(reference.mean_absolute_error(truth, predicted, sample_weight=weight))
        assert found["r2"][b] == pytest.approx(reference.r2_score(truth, predicted, sample_weight=weight))


@pytest.mark.parametrize(("predicted", "expected"), [([2.0, 2.0], 1.0), ([2.0, 3.0], 0.0)])
def test_r2_of_one_number_is_what_scikit_learn_makes_of_it(predicted: list[float], expected: float) -> None:
    truth = np.array([2.0, 2.0])
    assert reference.r2_score(truth, predicted) == expected
    assert regression.r2(truth, np.array(predicted)) == expected


def test_metrics_of_several_classes_are_scikit_learns_under_every_replicate() -> None:
    _, _, truth = values(60, 5)
    scores = np.clip(np.random.default_rng(1).normal(0.4 * truth + 0.3, 0.3), 0.0, 1.0)
    called, nothing, weights_TB = scores > 0.5, np.zeros(0), weights(60)
    found = multi_label.weighted(truth, scores, nothing, nothing, weights_TB, CLASSES)
    inside = np.clip(scores, np.finfo(float).eps, 1 - np.finfo(float).eps)
    for b, weight in enumerate(weights_TB.T):
        for average in ("macro", "micro"):
            theirs = reference.f1_score(truth, called, average=average, sample_weight=weight)
            assert found[f"{average}_f1"][b] == pytest.approx(theirs)
        assert found["subset_accuracy"][b] == pytest.approx(
            reference.accuracy_score(truth, called, sample_weight=weight)
        )
        assert found["hamming_loss"][b] == pytest.approx(reference.hamming_loss(truth, called, sample_weight=weight))
        losses = [
            reference.log_loss(truth[:, k], inside[:, k], sample_weight=weight, labels=[0, 1]) for k in range(CLASSES)
        ]
        assert found["log_loss"][b] == pytest.approx(np.mean(losses))
    ranked = multi_label.ranked(truth, scores)
    assert ranked["mean_average_precision"] == pytest.approx(reference.average_precision_score(truth, scores))
    assert ranked["auroc"] == pytest.approx(reference.roc_auc_score(truth, scores))


def test_a_class_that_no_test_row_has_is_left_out_of_the_ranked_ones() -> None:
    _, _, truth = values(60, 5)
    scores = np.random.default_rng(1).random((60, CLASSES))
    without = truth.copy()
    without[:, 2] = 0
    others = [0, 1, 3]
    assert multi_label.ranked(without, scores) == multi_label.ranked(truth[:, others], scores[:, others])
    assert multi_label.ranked(np.zeros_like(truth), scores) == {}


def test_average_precision_is_scikit_learns_and_recall_a_loop() -> None:
    random = np.random.default_rng(0)
    gallery, queries = random.normal(size=(70, 5)), random.normal(size=(30, 5))
    gallery, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (gallery, queries))
    classes, wanted = random.integers(0, 4, 70), random.integers(0, 5, 30)  # of class 4 the gallery has none
    found = retrieved.measure(gallery, classes, queries, wanted)
    for query, label, (average, *recalls) in zip(queries, wanted, found, strict=True):
        similarity = gallery @ query
        expected = reference.average_precision_score(classes == label, similarity) if label < 4 else 0.0
        assert average == pytest.approx(expected)
        ranking = sorted(range(70), key=lambda place: -similarity[place])
        for rank, recall in zip((1, 5, 10), recalls, strict=True):
            assert recall == float(any(classes[place] == label for place in ranking[:rank]))


def test_measuring_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    given = random.normal(size=(9, 3)), random.integers(0, 2, 9), random.normal(size=(7, 3)), random.integers(0, 2, 7)
    whole = retrieved.measure(*given)
    monkeypatch.setattr(retrieved, "CELLS", 20)
    np.testing.assert_array_equal(retrieved.measure(*given), whole)


def test_what_is_lower_is_better_is_chosen_lower() -> None:
    truth = np.array([1.0, 2.0, 4.0])
    kind = kinds.of("regression")
    for metric in ("rmse", "mae", "r2"):
        assert kind.merit(truth, truth[:, None], metric) > kind.merit(truth, truth[:, None] + 1, metric)
