"""What holds for every strategy in the tasks besides classification that it can do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.transfer import STRATEGIES, kinds, names_for, strategy
from ssl_tasks.transfer.base import Context, FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.strategies import majority

# mlp stops after its steps, converged or not; a fit of two rows has little to converge to
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
NO_TABLES = {"lora", "net2net"}
TRAIN, VAL, TEST = np.arange(60), np.arange(60, 90), np.arange(90, 150)
OPTIONS = {"scratch": {"steps": 120, "batch_size": 16}, "tune": {"batch_size": 16, "learning_rates": [1e-2]}}
PAIRS = [
    (name, task)
    for name in sorted({*STRATEGIES} - NO_TABLES)
    for task in ("multi_label", "regression")
    if task in strategy(name).tasks
]


def features() -> FloatArray:
    return np.random.default_rng(0).normal(size=(150, 6))


def targets(task: str) -> np.ndarray:
    """Three classes by the signs of three features, or a sum of two, far from 0 and large."""
    values = features()
    if task == "multi_label":
        return (values[:, :3] > 0.3).astype(np.int64)
    return 1000.0 + 50.0 * (values[:, 0] - values[:, 1])


def build(seed: int) -> nn.Module:
    return build_backbone("mlp:16x2", modality="tabular", input_shape=(6,), seed=seed)


def context() -> Context:
    payload = torch.from_numpy(features().astype(np.float32))
    with torch.inference_mode():
        embedded = build(7)(payload).double().numpy()
    return Context(
        payload=lambda positions: payload[torch.from_numpy(positions)],
        augment=lambda batch, keys: batch,
        to_input=lambda batch: batch,
        build=build,
        networks={"made": lambda: build(7)},
        train=TRAIN,
        options=Options.model_validate(OPTIONS),
        method="made",
        features=embedded,
    )


def task_of(found: Strategy, task: str) -> Task:
    values, labels = features(), targets(task)
    is_payload = found.needs == "payload"
    rows: Any = np.arange(150) if is_payload else found.prepare(values[TRAIN])(values)
    outputs, metric = (3, "macro_f1") if task == "multi_label" else (1, "rmse")
    return Task(
        rows[TRAIN], labels[TRAIN], rows[VAL], labels[VAL], rows[TEST], outputs,
        seed=0, metric=metric, context=context() if is_payload else None, task=task,
    )  # fmt: skip


def skill(task: str, prediction: Prediction) -> float:
    """1 for all right, 0 for what `majority` reaches."""
    kind, truth = kinds.of(task), targets(task)[TEST]
    if task == "regression":
        return kind.score(truth, prediction.scores)["r2"]
    most = kind.score(truth, majority.fit(task_of(majority.STRATEGY, task)).scores)["macro_f1"]
    return (kind.score(truth, prediction.scores)["macro_f1"] - most) / (1 - most)


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_every_strategy_learns_every_task_that_it_says_it_can(name: str, task: str) -> None:
    found = strategy(name)
    whole = task_of(found, task)
    first = found.fit(whole)
    assert first.scores.shape == (60, whole.num_classes)
    assert skill(task, first) > (0.3 if name in ("knn", "last_layers") else 0.5)
    if task == "multi_label":
        assert first.scores.min() >= 0
        assert first.scores.max() <= 1
    if name in ("from_scratch", "fine_tune"):
        assert first.chosen["train_r2" if task == "regression" else "train_accuracy"] > 0.8
    again = found.fit(whole)
    assert np.array_equal(first.scores, again.scores)
    assert first.chosen == again.chosen


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_two_rows_and_no_val_are_enough(name: str, task: str) -> None:
    found = strategy(name)
    whole = task_of(found, task)
    few = dataclasses.replace(
        whole, train=whole.train[:2], labels=whole.labels[:2], val=whole.val[:0], val_labels=whole.val_labels[:0]
    )
    scores = found.fit(few).scores
    assert scores.shape == (60, whole.num_classes)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["linear_probe", "knn", "ridge", "random_forest", "gradient_boosting", "mlp", "lp_ft"])
def test_a_single_class_of_which_a_row_may_have_none(name: str) -> None:
    found = strategy(name)
    whole = task_of(found, "multi_label")
    one = dataclasses.replace(whole, labels=whole.labels[:, :1], val_labels=whole.val_labels[:, :1], num_classes=1)
    scores = found.fit(one).scores
    assert scores.shape == (60, 1)
    assert ((scores[:, 0] > 0.5) == targets("multi_label")[TEST, 0]).mean() > 0.7


def test_a_number_moves_with_its_unit() -> None:
    """What is predicted in grams is a thousand times what is predicted in kilograms."""
    for name in ("ridge", "knn", "mlp", "fine_tune"):
        found = strategy(name)
        whole = task_of(found, "regression")
        larger = dataclasses.replace(whole, labels=whole.labels * 1000, val_labels=whole.val_labels * 1000)
        np.testing.assert_allclose(found.fit(larger).scores, 1000 * found.fit(whole).scores, rtol=1e-3)


def test_those_that_can_are_listed() -> None:
    assert names_for("retrieval") == ["retrieval"]
    assert {"ridge", "knn", "fine_tune"} <= {*names_for("regression")}
    assert "linear_probe" not in names_for("regression")
    assert "retrieval" not in names_for("classification")
