"""What the strategies that adapt to a target promise, against naive versions and on a shift that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import nn

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer import STRATEGIES, strategy
from ssl_tasks.transfer.base import Blueprint, Context, Domains, Task
from ssl_tasks.transfer.networks.adaptation import Classifier, both_layers, penalized
from ssl_tasks.transfer.networks.critic import domain_loss, make_critic, reverse
from ssl_tasks.transfer.networks.sgd import Sgd
from ssl_tasks.transfer.networks.training import Schedule, Start, Training, annealed
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.strategies.coral import alignment
from ssl_tasks.transfer.strategies.dann import ramp
from ssl_tasks.transfer.strategies.deep_coral import coral_loss
from ssl_tasks.transfer.strategies.mmd import discrepancy

ADAPTING = sorted(name for name in STRATEGIES if strategy(name).adapts)
OPTIONS: dict[str, Any] = {
    "tune": {"steps": 150, "batch_size": 32, "learning_rates": [3e-3, 1e-2], "weight_decay": 0.0},
    "adapt": {"dann_rates": [1e-2, 3e-2]},
}
SOURCE, VAL, TARGET, TEST = (np.arange(start, start + 120) for start in (0, 120, 240, 360))


MOVED = (6.0, -6.0, 0.0, 1.0, 1.0, 1.0)
"""Towards other classes: what no batch statistics undo is lost."""
NUISANCE = (0.0, 0.0, 0.0, 2.0, 2.0, -2.0)
"""Along features that say nothing of the class."""


def norms(seed: int, norm: Callable[[int], nn.Module] = nn.BatchNorm1d) -> nn.Module:
    """(B, 6) -> (B, 8)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU())
    network.num_features = 8  # type: ignore[assignment]
    return network


def plain(seed: int) -> nn.Module:
    """Without batch norm, whose statistics would be those of both domains in a batch."""
    return norms(seed, nn.Identity)


def shifted(offset: Sequence[float], scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes; target rows are such rows scaled and moved."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 480)
    values = random.normal(size=(480, 6)) + 3 * np.eye(3, 6)[labels]
    values[240:] = scale * values[240:] + np.array(offset)
    return values, labels


def context(values: np.ndarray, build: Callable[[int], nn.Module] = norms, **options: Any) -> Context:
    payload = torch.from_numpy(values.astype(np.float32))
    with torch.inference_mode():
        features = build(7).eval()(payload).double().numpy()
    return Context(
        payload=lambda positions: payload[torch.from_numpy(positions)],
        augment=lambda batch, keys: batch,
        to_input=lambda batch: batch,
        build=build,
        networks={"made": lambda: build(7)},
        train=np.concatenate([SOURCE, TARGET]),
        options=Options.model_validate(OPTIONS | options),
        method="made",
        features=features,
        domains=Domains(SOURCE, TARGET, (VAL, TARGET), np.arange(240)),
    )


def task(values: np.ndarray, labels: np.ndarray, **options: Any) -> Task:
    test = np.concatenate([TEST, VAL])
    return Task(
        SOURCE, labels[SOURCE], VAL, labels[VAL], test, 3, seed=0, context=context(values, **options)
    )  # fmt: skip


def accuracy(name: str, given: Task, labels: np.ndarray) -> tuple[float, float, dict[str, float]]:
    """Of target and source rows, and the facts of the fit."""
    found = strategy(name).fit(given)
    right = found.scores.argmax(axis=1) == labels[given.test]
    return float(right[:120].mean()), float(right[120:].mean()), found.chosen


def test_these_are_the_ones_that_adapt() -> None:
    assert ADAPTING == ["adabn", "coral", "dann", "deep_coral", "mmd"]
    assert {strategy(name).counterpart for name in ADAPTING} == {"linear_probe", "fine_tune"}


@pytest.mark.parametrize("name", ["coral", "adabn", "deep_coral", "mmd", "dann"])
def test_a_shift_of_scale_and_place_is_undone(name: str) -> None:
    values, labels = shifted(MOVED, scale=2.0)
    unadapted, _, before = accuracy("fine_tune", task(values, labels), labels)
    target, source, chosen = accuracy(name, task(values, labels), labels)
    assert unadapted < 0.6 < 0.8 < target
    assert source > 0.9
    assert chosen["mmd_after"] < 0.2 * before["mmd_after"]


@pytest.mark.parametrize(("name", "steps", "weight"), [("dann", 500, 0.3), ("mmd", 150, 1.0), ("deep_coral", 150, 1.0)])
def test_the_penalty_lowers_the_gap_and_the_source_is_kept(name: str, steps: int, weight: float) -> None:
    """The critic needs its time."""
    values, labels = shifted(NUISANCE)
    tune = {**OPTIONS["tune"], "steps": steps, "learning_rates": [1e-2]}
    (_, _, without), (_, source, chosen) = (
        accuracy(name, task(values, labels, build=plain, tune=tune, adapt={name: of}), labels) for of in (0.0, weight)
    )
    assert source > 0.9
    assert chosen["mmd_after"] < 0.5 * without["mmd_after"]


@pytest.mark.parametrize("name", ADAPTING)
def test_labels_of_the_target_are_not_asked_for(name: str) -> None:
    """A task has none of them: what a fit gives depends on source labels and target rows alone."""
    values, labels = shifted(MOVED)
    first = strategy(name).fit(task(values, labels)).scores
    labels[240:] = (labels[240:] + 1) % 3
    assert np.array_equal(first, strategy(name).fit(task(values, labels)).scores)
    values[TARGET] += np.random.default_rng(1).normal(size=(120, 6))
    assert not np.array_equal(first, strategy(name).fit(task(values, labels)).scores)


def test_coral_follows_the_formula() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(50, 4)) @ random.normal(size=(4, 4)), random.normal(size=(60, 4))
    expected = fractional_matrix_power(np.cov(source.T) + np.eye(4), -0.5) @ fractional_matrix_power(
        np.cov(target.T) + np.eye(4), 0.5
    )
    found = alignment(source, target)
    assert found == pytest.approx(expected)
    assert found.T @ (np.cov(source.T) + np.eye(4)) @ found == pytest.approx(np.cov(target.T) + np.eye(4))
    assert alignment(source, source + 3.0) == pytest.approx(np.eye(4))
    assert alignment(source[:, :1], source[:, :1]) == pytest.approx(np.eye(1))


def test_deep_coral_follows_the_formula() -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(12, 3)), 2.0 * random.normal(size=(9, 3))
    expected = sum((np.cov(source.T) - np.cov(target.T)).ravel() ** 2) / (4 * 3**2)
    assert float(coral_loss(torch.from_numpy(source), torch.from_numpy(target))) == pytest.approx(expected)
    assert float(coral_loss(torch.from_numpy(source), torch.from_numpy(source + 5))) == pytest.approx(0.0, abs=1e-20)


def test_penalties_are_of_features_and_logits() -> None:
    network = Classifier(norms(0), 3)
    nn.init.normal_(network.head.weight)
    source, target = torch.randn(5, 8), torch.randn(6, 8)
    expected = 2.0 * (coral_loss(source, target) + coral_loss(network.head(source), network.head(target)))
    torch.testing.assert_close(both_layers(coral_loss, 2.0)(network, source, target), expected)
    assert float(discrepancy(source[:1], target)) == 0.0


def test_each_domain_has_batch_statistics_of_its_own() -> None:
    network = Classifier(norms(0), 3)
    nn.init.normal_(network.head.weight)
    rows, labels = torch.randn(12, 6), torch.tensor([0, -1, 1, 2, -1, -1, 0, -1, 1, -1, -1, 2])
    seen: list[torch.Tensor] = []

    def penalty(network: Classifier, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.extend([source, target])
        return torch.zeros(())

    loss = penalized(penalty)(network, rows, labels)
    source, target = (network.encoder(rows[part]) for part in (labels >= 0, labels < 0))
    torch.testing.assert_close(seen, [source, target])
    torch.testing.assert_close(loss, nn.functional.cross_entropy(network.head(source), labels[labels >= 0]))
    penalized(penalty)(network, torch.where((labels < 0)[:, None], 3 * rows + 5, rows), labels)
    torch.testing.assert_close(seen[2:], [source, target], atol=1e-3, rtol=1e-3)  # but for batch norm's epsilon


def test_sgd_is_that_of_torch() -> None:
    ours, theirs = (plain(0) for _ in range(2))
    mine, others = Sgd(ours.parameters(), 0.01, 0.9), torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.01)
    for step in range(4):
        rows = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        others.zero_grad()
        for network in (ours, theirs):
            network(rows).square().mean().backward()
        mine.step(0.1 * annealed(step / 4))
        others.param_groups[0]["lr"] = 0.1 / (1 + 10 * step / 4) ** 0.75
        others.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_the_gradient_is_reversed_towards_the_features_alone() -> None:
    critic = make_critic([4, 6, 5], seed=0)
    source, target = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in (5, 7))

    def gradients(strength: float | None) -> tuple[list[torch.Tensor], float]:
        leaves = [rows.clone().requires_grad_() for rows in (source, target)]
        critic.zero_grad(set_to_none=True)
        if strength is None:
            cross = nn.functional.binary_cross_entropy_with_logits
            loss = cross(critic(leaves[0]), torch.zeros(5, 1)) + cross(critic(leaves[1]), torch.ones(7, 1))
        else:
            loss = domain_loss(critic, leaves[0], leaves[1], strength)
        loss.backward()  # type: ignore[no-untyped-call]  # as torch has it
        found = [tensor.grad for tensor in (*leaves, *critic.parameters())]
        return [grad.clone() for grad in found if grad is not None], float(loss.detach())

    (plain, value), (turned, same) = gradients(None), gradients(0.25)
    assert same == pytest.approx(value)
    for found, expected in zip(turned[:2], plain[:2], strict=True):
        torch.testing.assert_close(found, -0.25 * expected)
    for found, expected in zip(turned[2:], plain[2:], strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(reverse(source, 0.5), source)
    other = make_critic([4, 6, 5], seed=1)
    assert [tuple(weight.shape) for weight in other.parameters()] == [(6, 4), (6,), (5, 6), (5,), (1, 5), (1,)]
    assert not torch.equal(next(other.parameters()), next(critic.parameters()))


def test_the_reversal_grows_as_in_the_paper() -> None:
    assert ramp(0.0) == 0.0
    assert ramp(0.1) == pytest.approx(2 / (1 + np.exp(-1.0)) - 1)
    assert ramp(1.0) == pytest.approx(0.99991, abs=1e-5)


def test_adabn_without_a_target_of_its_own_is_fine_tuning() -> None:
    values, labels = shifted(MOVED)
    given = task(values, labels)
    tuned, found = strategy("fine_tune").fit(given), strategy("adabn").fit(given)
    assert np.array_equal(found.scores[120:], tuned.scores[120:])  # rows of the source, under its statistics
    assert not np.array_equal(found.scores[:120], tuned.scores[:120])
    few = dataclasses.replace(given, test=VAL[:5])
    assert np.array_equal(strategy("adabn").fit(few).scores, tuned.scores[120:125])


def test_equal_tasks_give_equal_bits() -> None:
    values, labels = shifted(MOVED)
    for name in ADAPTING:
        first, second = (strategy(name).fit(task(values, labels)) for _ in range(2))
        assert np.array_equal(first.scores, second.scores)
        assert first.chosen == second.chosen


@pytest.mark.parametrize(("sources", "targets", "each"), [(120, 120, 32), (10, 120, 10), (120, 10, 32), (40, 33, 32)])
def test_a_batch_has_as_many_target_rows_as_source_rows(sources: int, targets: int, each: int) -> None:
    values, labels = shifted(MOVED)
    given = task(values, labels)
    few = dataclasses.replace(given, train=SOURCE[:sources], labels=labels[SOURCE[:sources]])
    schedule = Schedule(10, 32, [1e-3], 0.0)
    training = Training(few, schedule, Start(norms(0), target=TARGET[:targets]), 1e-3)
    seen = []
    for step in range(5):
        positions, known = training._batch(step)
        assert len(positions) == 2 * each
        assert set(positions[:each].tolist()) <= set(SOURCE[:sources])
        assert known[:each].tolist() == labels[positions[:each]].tolist()
        assert set(positions[each:].tolist()) <= set(TARGET[:targets])
        assert (known[each:] == -1).all()
        assert len(set(positions[each:].tolist())) == min(each, targets)
        seen.append(tuple(positions[each:].tolist()))
    assert len(set(seen)) == 5


def test_adabn_refuses_a_network_without_batch_norm() -> None:
    check = strategy("adabn").check
    assert check is not None
    check(Blueprint(norms(0), Options()))
    with pytest.raises(RequestError, match=r"transfer.strategies: adabn .*Linear has none"):
        check(Blueprint(nn.Linear(2, 2), Options()))
