"""What the strategies that combine the embeddings by several encoders promise, against naive versions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.several import of_each, probe_each
from ssl_tasks.transfer.strategies import best_encoder, concatenate, linear_probe, select_features, weighted_encoders
from ssl_tasks.transfer.targets import MULTI_LABEL, REGRESSION

CLASSES = 3
WIDTHS = (5, 3, 4)
TRAIN, VAL, TEST = slice(0, 40), slice(40, 100), slice(100, 300)
COMBINING = ["concatenate", "select_features", "weighted_encoders", "best_encoder"]


def made(**changes: Any) -> Task:
    """Three encoders: the first and the last each tell one class from the others, the middle one is noise."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 300)
    rows = random.normal(size=(300, sum(WIDTHS)))
    rows[:, 0] += 2.5 * (labels == 0)
    rows[:, 9] += 2.5 * (labels == 1)
    task = Task(rows[TRAIN], labels[TRAIN], rows[VAL], labels[VAL], rows[TEST], CLASSES, seed=0, widths=WIDTHS)
    return dataclasses.replace(task, **changes)


def accuracy(scores: np.ndarray) -> float:
    labels = np.random.default_rng(0).integers(0, CLASSES, 300)[TEST]
    return float((scores.argmax(axis=1) == labels).mean())


def test_columns_are_shared_out_by_width() -> None:
    task = made()
    parts = of_each(task)
    assert [part.train.shape for part in parts] == [(40, 5), (40, 3), (40, 4)]
    assert np.array_equal(np.hstack([part.test for part in parts]), task.test)
    assert np.array_equal(np.hstack([part.val for part in parts]), task.val)


def test_encoders_that_know_different_things_are_worth_more_together() -> None:
    alone = accuracy(best_encoder.fit(made()).scores)
    for name in ("concatenate", "select_features", "weighted_encoders"):
        assert accuracy(strategy(name).fit(made()).scores) > alone + 0.05, name


def test_concatenate_is_scikit_learns_logistic_regression_on_all_columns() -> None:
    task = made()
    found = concatenate.fit(task)
    naive = LogisticRegression(C=found.chosen["C"], max_iter=1000).fit(task.train, task.labels)
    assert np.array_equal(found.scores, naive.predict_proba(task.test))


def test_best_encoder_is_the_probe_that_val_prefers() -> None:
    task = made()
    alone = [linear_probe.fit(part) for part in of_each(task)]
    on_val = [linear_probe.fit(dataclasses.replace(part, test=part.val)) for part in of_each(task)]
    values = [task.val_score(prediction.scores) for prediction in on_val]
    found = best_encoder.fit(task)
    assert found.chosen["encoder"] == np.argmax([value[0] for value in values])
    assert np.array_equal(found.scores, alone[int(found.chosen["encoder"])].scores)


def test_another_val_chooses_another_encoder() -> None:
    first = best_encoder.fit(made()).chosen["encoder"]
    assert first in (0, 2)
    other = made().val.copy()
    other[:, 0 if first == 0 else 9] = 0.0
    assert best_encoder.fit(made(val=other)).chosen["encoder"] != first


def test_without_val_labels_the_runs_own_encoder_and_equal_weights_are_taken() -> None:
    task = made()
    none = dataclasses.replace(task, val=task.val[:0], val_labels=task.val_labels[:0])
    assert best_encoder.fit(none).chosen["encoder"] == 0
    weighted = weighted_encoders.fit(none)
    assert [weighted.chosen[f"weight {place}"] for place in range(3)] == pytest.approx([1 / 3] * 3)
    assert np.allclose(weighted.scores, np.mean([probed.test for probed in probe_each(none)], axis=0))
    assert select_features.fit(none).chosen["features"] == 12


def test_weights_are_those_of_the_least_log_loss_on_val() -> None:
    """Against expectation maximization of a mixture's weights: w <- mean over rows of w p / (w . p)."""
    task = made()
    given = np.stack([probed.val[np.arange(60), task.val_labels] for probed in probe_each(task)])
    weights = np.full(3, 1 / 3)
    for _ in range(20_000):
        weights = (weights[:, None] * given / (weights @ given)).mean(axis=1)
    found = weighted_encoders.fit(task)
    assert [found.chosen[f"weight {place}"] for place in range(3)] == pytest.approx(weights, abs=1e-3)
    naive = sum(weight * probed.test for weight, probed in zip(weights, probe_each(task), strict=True))
    assert found.scores == pytest.approx(naive, abs=1e-3)


def test_a_probe_that_is_sure_of_the_wrong_class_gets_no_weight() -> None:
    right, wrong = np.eye(2)[[0, 1, 0, 1]] * 0.8 + 0.1, np.eye(2)[[1, 0, 1, 0]]
    assert weighted_encoders.pool([right, wrong], np.array([0, 1, 0, 1])) == pytest.approx([1.0, 0.0], abs=1e-6)


def test_selected_features_are_those_with_the_largest_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_features, "NUMBERS", (1, 2, 6, 100))
    task = made()
    coefficients = LogisticRegression(C=linear_probe.DEFAULT, max_iter=1000).fit(task.train, task.labels).coef_
    order = np.argsort(-np.sqrt((coefficients**2).sum(axis=0)))
    for number, mask in zip((1, 2, 6), select_features.select(task, [1, 2, 6]), strict=True):
        assert set(np.flatnonzero(mask)) == set(order[:number])
    found = select_features.fit(task)
    assert found.chosen["features"] == 2  # the two that carry signal; more are noise
    assert [found.chosen[f"from {place}"] for place in range(3)] == [1, 0, 1]
    few = task.train[:, [0, 9]], task.test[:, [0, 9]]
    naive = LogisticRegression(C=found.chosen["C"], max_iter=1000).fit(few[0], task.labels)
    assert found.scores == pytest.approx(naive.predict_proba(few[1]))


def test_a_number_above_all_features_means_all() -> None:
    found = select_features.fit(made())
    assert found.chosen["features"] == 12
    assert found.scores == pytest.approx(concatenate.fit(made()).scores)


@pytest.mark.parametrize("name", COMBINING)
def test_one_encoder_is_the_linear_probe(name: str) -> None:
    task = made(widths=(12,))
    assert strategy(name).fit(task).scores == pytest.approx(linear_probe.fit(task).scores)


def test_a_class_that_val_alone_knows_is_no_trouble() -> None:
    task = made()
    kept = task.labels != 2
    scores = weighted_encoders.fit(dataclasses.replace(task, train=task.train[kept], labels=task.labels[kept])).scores
    assert np.isfinite(scores).all()
    assert scores[:, 2].max() == 0


def of_other_tasks(task: str) -> Task:
    """`made`, with numbers or several classes that the first and the last encoder know a half of each."""
    given = made()
    rows = np.concatenate([given.train, given.val, given.test])
    several = np.stack([rows[:, 0] > 1, rows[:, 9] > 1], axis=1).astype(np.int64)
    labels = several if task == MULTI_LABEL else 1e4 * (rows[:, 0] + rows[:, 9]) + 1e6
    metric, outputs = ("macro_f1", 2) if task == MULTI_LABEL else ("rmse", 1)
    return dataclasses.replace(
        given, task=task, metric=metric, num_classes=outputs, labels=labels[TRAIN], val_labels=labels[VAL]
    )


@pytest.mark.parametrize("task", [MULTI_LABEL, REGRESSION])
def test_in_every_task_halves_are_put_together(task: str) -> None:
    asked = of_other_tasks(task)
    on_val = dataclasses.replace(asked, test=asked.val)
    best = asked.val_score(best_encoder.fit(on_val).scores)
    for name in ("concatenate", "select_features", "weighted_encoders"):
        assert asked.val_score(strategy(name).fit(on_val).scores) > best, name


def test_weights_of_numbers_are_those_of_the_least_squared_error() -> None:
    """Against all weights on a grid."""
    asked = of_other_tasks(REGRESSION)
    scores = [probed.val[:, 0] for probed in probe_each(asked)]
    grid = [(a, b, 100 - a - b) for a in range(101) for b in range(101 - a)]
    errors = [np.mean((np.array(w) / 100 @ scores - asked.val_labels) ** 2) for w in grid]
    best = np.array(grid[int(np.argmin(errors))]) / 100
    found = weighted_encoders.fit(asked)
    assert [found.chosen[f"weight {place}"] for place in range(3)] == pytest.approx(best, abs=0.011)


def test_weights_of_several_classes_are_those_of_the_least_log_loss() -> None:
    asked = of_other_tasks(MULTI_LABEL)
    scores = np.stack([probed.val for probed in probe_each(asked)])
    grid = [(a, b, 100 - a - b) for a in range(101) for b in range(101 - a)]

    def loss(weights: tuple[int, ...]) -> float:
        p = np.tensordot(np.array(weights) / 100, scores, axes=1)
        return float(-(asked.val_labels * np.log(p) + (1 - asked.val_labels) * np.log(1 - p)).mean())

    best = np.array(min(grid, key=loss)) / 100
    found = weighted_encoders.fit(asked)
    assert [found.chosen[f"weight {place}"] for place in range(3)] == pytest.approx(best, abs=0.011)
