"""What model soups promise, on digits that the encoder has not seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tests_digits as digits
import torch
from torch import nn

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import Blueprint, Domains
from ssl_tasks.transfer.networks import soup
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.strategies import best_tuned, fine_tune, greedy_soup, uniform_soup

FEW: dict[str, Any] = {"tune": {"steps": 30, "learning_rates": [1e-4, 1e-3, 3e-3]}}


def with_further(task: digits.Task, *networks: Any) -> digits.Task:
    assert task.context is not None
    further = {f"other {place}": {"trained": make} for place, make in enumerate(networks)}
    return dataclasses.replace(task, context=dataclasses.replace(task.context, further=further))


def test_the_average_is_the_mean_of_the_weights() -> None:
    first, second = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    second[1].num_batches_tracked.fill_(7)
    mean = soup.average([dict(first.state_dict()), dict(second.state_dict())])
    for name, value in mean.items():
        naive = (first.state_dict()[name] + second.state_dict()[name]) / 2
        assert name.endswith("tracked") or torch.allclose(value, naive), name
    assert mean["1.num_batches_tracked"] == 0


def test_greedy_keeps_what_does_not_hurt() -> None:
    """Recipe 1 by hand: sorted by value 1, 3, 0, 2; with 3 it is worse, with 0 as good, with 2 better."""
    tasted: list[list[int]] = []
    worth = {(1, 3): 0.7, (1, 0): 0.9, (1, 0, 2): 0.95}

    def taste(places: list[int]) -> tuple[float, float]:
        tasted.append(places)
        return worth[tuple(places)], 0.0

    assert soup.greedy([(0.6, 0.0), (0.9, 0.0), (0.5, 0.0), (0.8, 0.0)], taste) == [1, 0, 2]
    assert tasted == [[1, 3], [1, 0], [1, 0, 2]]


def test_of_equal_ingredients_the_first_begins() -> None:
    assert soup.greedy([(0.5, 0.0), (0.5, 0.0)], lambda places: (0.0, 0.0)) == [0]


def test_ingredients_are_every_rate_and_order_of_every_encoder() -> None:
    task = digits.task(digits.MLP, labelled=40, tune={"steps": 3, "learning_rates": [1e-3, 1e-2]}, soup={"orders": 2})
    made = soup.ingredients(with_further(task, lambda: digits.build(digits.MLP, 5)))
    assert [one.trained.rate for one in made] == [1e-3, 1e-3, 1e-2, 1e-2] * 2
    weights = [one.trained.network[1].weight for one in made]  # type: ignore[index]
    assert all(not torch.equal(weights[i], weights[j]) for i in range(8) for j in range(i))


def test_the_uniform_soup_is_the_network_of_mean_weights() -> None:
    task = digits.task(digits.MLP, labelled=60, **FEW)
    found = uniform_soup.fit(task)
    made = soup.ingredients(task)
    network = made[0].trained.network
    states = [dict(one.trained.network.state_dict()) for one in made]
    mean = {name: sum(state[name] for state in states) / 3 for name in states[0]}
    network.load_state_dict(mean)
    assert found.scores == pytest.approx(made[0].trained.scores(task.test), abs=1e-5)
    assert found.chosen == {"ingredients": 3, "of": 3, "from 0": 3}


def test_the_greedy_soup_is_no_worse_on_val_than_its_best_ingredient() -> None:
    task = digits.task(digits.MLP, labelled=60, **FEW)
    on_val = dataclasses.replace(task, test=task.val)
    best = max(one.val for one in soup.ingredients(task))
    assert task.val_score(greedy_soup.fit(on_val).scores) >= best
    assert task.val_score(best_tuned.fit(on_val).scores) == best


def test_a_soup_of_one_is_its_ingredient_bit_by_bit() -> None:
    task = digits.task("test_resnet", labelled=16, val=20, tune={"steps": 3, "learning_rates": [1e-3]})
    assert np.array_equal(greedy_soup.fit(task).scores, best_tuned.fit(task).scores)
    assert np.array_equal(uniform_soup.fit(task).scores, fine_tune.fit(task).scores)


def test_equal_metrics_are_kept_whatever_decides_the_order() -> None:
    """The soup is less sure than the best ingredient, and right as often; the last makes it worse."""
    worth = {(0, 1): (0.9, -0.7), (0, 1, 2): (0.8, -0.1)}
    values = [(0.9, -0.3), (0.9, -0.5), (0.7, -0.2)]
    assert soup.greedy(values, lambda places: worth[tuple(places)]) == [0, 1]


@pytest.mark.parametrize("of_domains", [False, True])
def test_batch_norms_of_a_soup_have_the_statistics_of_train_rows(of_domains: bool) -> None:
    """Under domains of the source's, as the fine-tuned networks have them."""
    task = digits.task("test_resnet", labelled=16, val=20, tune={"steps": 3, "learning_rates": [1e-3, 1e-2]})
    assert task.context is not None
    rows = task.context.train
    if of_domains:
        rows = task.context.train[::2]
        domains = Domains(rows, task.context.train[1::2], (rows, rows), rows)
        task = dataclasses.replace(task, context=dataclasses.replace(task.context, domains=domains))
    assert task.context is not None
    made = soup.ingredients(task)
    kettle = soup.Kettle(task, made)
    kettle.scores([0, 1], task.test[:4])
    network, context = made[0].trained.network, task.context
    first = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(context.to_input(context.payload(rows[:256])))
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-4)


def test_an_encoder_that_val_does_not_want_is_left_out_of_the_greedy_soup() -> None:
    """A further encoder with fresh weights: its fine-tuned networks lie elsewhere, and means with them know nothing."""
    task = with_further(digits.task(digits.MLP, labelled=60, **FEW), lambda: digits.build(digits.MLP, 9))
    found, uniform = greedy_soup.fit(task), uniform_soup.fit(task)
    assert found.chosen["from 0"] >= 1
    assert found.chosen["from 1"] == 0
    assert found.chosen["of"] == 6
    assert digits.accuracy(found.scores) > digits.accuracy(uniform.scores)
    assert best_tuned.fit(task).chosen["encoder"] == 0


def test_without_val_labels_nothing_is_chosen() -> None:
    task = digits.task(digits.MLP, labelled=40, val=0, tune={"steps": 5})
    assert np.array_equal(best_tuned.fit(task).scores, fine_tune.fit(task).scores)
    assert np.array_equal(greedy_soup.fit(task).scores, fine_tune.fit(task).scores)
    assert uniform_soup.fit(task).chosen["ingredients"] == 3


def test_another_architecture_is_refused_by_key_and_name() -> None:
    own = digits.build("test_resnet", 0)
    soup.check(Blueprint(own, Options(), further={"byol 0123": digits.build("test_resnet", 1)}))
    with pytest.raises(RequestError, match=r"transfer\.encoders: mae 4567 is no network of the run's own architecture"):
        soup.check(Blueprint(own, Options(), further={"mae 4567": digits.build("test_vit", 0)}))


def test_networks_that_pool_otherwise_are_of_another_architecture() -> None:
    from ssl_tasks.backbones import build_backbone

    ours, theirs = (
        build_backbone("test_vit", modality="image", input_shape=(1, 8, 8), pool=pool)  # type: ignore[arg-type]
        for pool in ("network", "average")
    )
    with pytest.raises(RequestError, match="architecture"):
        soup.check(Blueprint(ours, Options(), further={"ibot": theirs}))


@pytest.mark.parametrize("wrong", [{"soup": {"orders": 0}}, {"encoders": ["a", "a"]}, {"encoders": [""]}])
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.model_validate(wrong)
