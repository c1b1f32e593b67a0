"""What holds for every transfer strategy. A new one is covered by being listed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.transfer import BASELINE, STRATEGIES, names, strategy
from ssl_tasks.transfer.base import Context, Domains, Prediction, Strategy, Task
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.targets import CLASSIFICATION

# mlp stops after its steps, converged or not; a fit of two rows has little to converge to
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
CLASSES = 4
BACKBONE = "mlp:16x2"
OPTIONS = {
    "scratch": {"steps": 120, "batch_size": 16},
    "tune": {"batch_size": 16, "learning_rates": [3e-3, 1e-2]},
}
TRAIN, VAL, TEST = np.arange(60), np.arange(60, 90), np.arange(90, 150)


NO_TABLES = {"lora", "net2net", "adabn"}
"""Of transformers, ResNets and batch norm; tests of their own hold them to the same."""


CLASSIFIERS = {name for name in STRATEGIES if CLASSIFICATION in strategy(name).tasks}


@pytest.fixture(scope="module", params=sorted(CLASSIFIERS - NO_TABLES))
def found(request: pytest.FixtureRequest) -> Strategy:
    return strategy(request.param)


@pytest.fixture(scope="module")
def fitted(found: Strategy) -> Prediction:
    """On `task`, once for all tests of the strategy."""
    return found.fit(task(found))


def features() -> tuple[np.ndarray, np.ndarray]:
    """Three classes far apart; the fourth never occurs."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES - 1, 150)
    return random.normal(size=(150, 6)) + 4 * np.eye(CLASSES, 6)[labels], labels


def build(seed: int) -> nn.Module:
    return build_backbone(BACKBONE, modality="tabular", input_shape=(6,), seed=seed)


def context(values: np.ndarray, labels: np.ndarray) -> Context:
    payload = torch.from_numpy(values.astype(np.float32))
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
        student=lambda seed: build_backbone("mlp:12x1", modality="tabular", input_shape=(6,), seed=seed),
        targets={"classification": labels, "regression": values[:, 0]},
        method="made",
        features=embedded,
        domains=Domains(TRAIN, TEST, (VAL, TEST), np.arange(90)),
    )


def task(found: Strategy) -> Task:
    values, labels = features()
    if found.needs == "payload":
        rows, given = np.arange(150), context(values, labels)
    else:
        rows, given = found.prepare(values[TRAIN])(values), None
    widths = (6,) if found.encoders == "one" else (4, 2)
    return Task(
        rows[TRAIN], labels[TRAIN], rows[VAL], labels[VAL], rows[TEST], CLASSES, seed=0, context=given, widths=widths
    )  # fmt: skip


def test_scores_are_probabilities_and_right(found: Strategy, fitted: Prediction) -> None:
    scores = fitted.scores
    assert scores.shape == (60, CLASSES)
    assert scores.min() >= 0
    assert scores.sum(axis=1) == pytest.approx(np.ones(60))
    assert (scores.argmax(axis=1) == features()[1][TEST]).mean() > 0.9
    if found.needs == "embeddings":  # a network has an output for the class it never saw
        assert (scores[:, -1] == scores.min(axis=1)).all()


def test_equal_tasks_give_equal_bits(found: Strategy, fitted: Prediction) -> None:
    second = found.fit(task(found))
    assert np.array_equal(fitted.scores, second.scores)
    assert fitted.chosen == second.chosen


def test_the_seed_matters_exactly_where_the_strategy_says_so(found: Strategy, fitted: Prediction) -> None:
    second = found.fit(dataclasses.replace(task(found), seed=1)).scores
    assert np.array_equal(fitted.scores, second) != found.seeded


def test_global_generators_are_left_alone(found: Strategy) -> None:
    """Fits run side by side: what one draws from a shared generator would change another's weights."""
    prepared = task(found)
    before = torch.get_rng_state(), np.random.get_state()[1]
    found.fit(prepared)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_row_is_scored_by_itself(found: Strategy, fitted: Prediction) -> None:
    whole = task(found)
    some = found.fit(dataclasses.replace(whole, test=whole.test[[7, 3]])).scores
    assert some == pytest.approx(fitted.scores[[7, 3]], abs=1e-6)


def test_without_val_labels_the_defaults_do(found: Strategy) -> None:
    whole = task(found)
    without = found.fit(dataclasses.replace(whole, val=whole.val[:0], val_labels=whole.val_labels[:0]))
    assert (without.scores.argmax(axis=1) == features()[1][TEST]).mean() > 0.7


def test_two_labelled_rows_are_enough(found: Strategy) -> None:
    whole = task(found)
    two = [int(np.flatnonzero(whole.labels == number)[0]) for number in (0, 1)]
    scores = found.fit(dataclasses.replace(whole, train=whole.train[two], labels=whole.labels[two])).scores
    assert np.isfinite(scores).all()
    assert scores.sum(axis=1) == pytest.approx(np.ones(60))


def test_listed_under_their_own_name() -> None:
    assert all(strategy(name).name == name for name in STRATEGIES)
    assert names() == sorted(set(STRATEGIES) - {BASELINE})


def test_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"no transfer strategy 'magic'; there are .*knn, .*linear_probe"):
        strategy("magic")
