from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tests_digits as digits
import torch

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import Blueprint, Task
from ssl_tasks.transfer.networks.adapters import LowRank, adapt, attentions
from ssl_tasks.transfer.options import Options, TuneConfig
from ssl_tasks.transfer.strategies import lora

VIT = "test_vit"


def task(steps: int = 3, **tune: object) -> Task:
    return digits.task(VIT, labelled=30, val=20, tune={"steps": steps, "learning_rates": [1e-2], **tune})


def test_the_update_is_the_papers() -> None:
    """W + (alpha / r) B A for the queries and the values, row by row (equation 3)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 5, generator=generator)
    low = LowRank(weight, 2, 6.0, generator)
    for part in (low.b_q, low.b_v):
        torch.nn.init.normal_(part, generator=generator)
    expected = weight.clone()
    for row in range(3):
        for column in range(5):
            for k in range(2):
                expected[row, column] += 6.0 / 2 * low.b_q[row, k] * low.a_q[k, column]
                expected[6 + row, column] += 6.0 / 2 * low.b_v[row, k] * low.a_v[k, column]
    torch.testing.assert_close(low(weight), expected)


def test_adapters_change_nothing_at_first() -> None:
    images = digits.digits()[0][:5]
    adapted = digits.encoder(VIT)
    adapt(adapted, TuneConfig(), seed=0)
    assert torch.equal(adapted(images), digits.encoder(VIT)(images))


def test_under_five_percent_are_trained_and_the_rest_stays() -> None:
    kept = []
    given = task()
    assert given.context is not None

    def network() -> torch.nn.Module:
        kept.append(digits.encoder(VIT))
        return kept[-1]

    found = lora.fit(
        dataclasses.replace(given, context=dataclasses.replace(given.context, networks={"trained": network}))
    )
    assert 0 < found.chosen["trained_share"] < 0.05
    start = digits.weights(VIT)
    for name, value in kept[0].state_dict().items():
        frozen = name.replace("parametrizations.weight.original", "weight")
        if frozen in start:
            assert torch.equal(value, start[frozen]), name
    layers = attentions(kept[0])
    assert len(layers) == 6
    assert all(layer.parametrizations.weight[0].b_q.abs().max() > 0 for layer in layers)


def test_it_learns_and_two_runs_are_equal() -> None:
    few, more = lora.fit(task(1)), lora.fit(task(25))
    assert more.chosen["train_accuracy"] > few.chosen["train_accuracy"]
    assert np.array_equal(more.scores, lora.fit(task(25)).scores)
    assert not np.array_equal(more.scores, lora.fit(dataclasses.replace(task(25), seed=1)).scores)


def test_without_val_labels_it_takes_the_middle_rate() -> None:
    given = task(1, lora_rates=[1e-3, 2e-3, 3e-3])
    without = dataclasses.replace(given, val=given.val[:0], val_labels=given.val_labels[:0])
    assert lora.fit(without).chosen["learning_rate"] == 2e-3


@pytest.mark.parametrize("name", ["test_resnet", digits.MLP])
def test_networks_without_attention_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"transfer\.strategies: lora adapts .* (ResNet|MLP) has none.*test_vit"):
        lora.check(Blueprint(digits.build(name, 0), Options()))


def test_a_rank_as_large_as_the_layer_is_refused() -> None:
    vit = digits.build(VIT, 0)
    with pytest.raises(RequestError, match=r"transfer\.tune\.lora_rank: 64 is no low rank"):
        lora.check(Blueprint(vit, Options.model_validate({"tune": {"lora_rank": 64}})))
    lora.check(Blueprint(vit, Options()))
