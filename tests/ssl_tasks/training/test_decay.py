"""Weight decay that follows a cosine, and biases with a rate of their own."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ssl_tasks.training.config import OptimizerConfig
from ssl_tasks.training.loop import Trainer
from ssl_tasks.training.optim import build_optimizer, decay_at

TOTAL = 8


def groups(**options: Any) -> list[list[dict[str, Any]]]:
    """Rate and decay that `_set_rate` gives weights and biases at each step."""
    config = OptimizerConfig(lr=0.5, warmup_fraction=0.0, **options)
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}], config)
    trainer = object.__new__(Trainer)
    trainer.job, trainer.config = SimpleNamespace(total_steps=TOTAL), SimpleNamespace(optimizer=config)
    found = []
    for trainer.step in range(TOTAL):
        trainer._set_rate(optimizer)
        found.append([{key: group[key] for key in ("lr", "weight_decay")} for group in optimizer.param_groups])
    return found


def test_half_a_cosine_from_start_to_end() -> None:
    assert decay_at(0, 10, 0.04, 0.4) == pytest.approx(0.04)
    assert decay_at(5, 10, 0.04, 0.4) == pytest.approx(0.22)
    assert decay_at(10, 10, 0.04, 0.4) == pytest.approx(0.4)
    assert decay_at(2, 8, 1.0, 0.0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("final", [0.4, 0.0])
def test_weights_decay_along_it_and_biases_never(name: str, final: float) -> None:
    found = groups(name=name, weight_decay=0.04, final_weight_decay=final)
    assert [weights["weight_decay"] for weights, _ in found] == [
        decay_at(step, TOTAL, 0.04, final) for step in range(TOTAL)
    ]
    assert {biases["weight_decay"] for _, biases in found} == {0.0}
    assert {weights["weight_decay"] for weights, _ in groups(name=name, weight_decay=0.04)} == {0.04}


def test_biases_have_their_share_of_the_rate() -> None:
    for weights, biases in groups(name="lars", bias_rate=0.024):
        assert biases["lr"] == pytest.approx(0.024 * weights["lr"])
    for weights, biases in groups(name="lars"):
        assert biases["lr"] == weights["lr"]


def test_a_decay_that_begins_with_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_decay is 0"):
        OptimizerConfig(weight_decay=0.0, final_weight_decay=0.4)
