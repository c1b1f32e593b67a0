"""The learning rate that each parameter group gets: a cosine, or constant after the warm-up."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ssl_tasks.methods.base import CONSTANT_RATE
from ssl_tasks.training.config import OptimizerConfig
from ssl_tasks.training.loop import Trainer
from ssl_tasks.training.optim import build_optimizer

TOTAL = 10


def rates(name: str, **options: float) -> list[tuple[float, float, float]]:
    """What `_set_rate` logs, gives a plain group, and gives one that keeps its rate, at each of ten steps."""
    config = OptimizerConfig(name=name, lr=0.5, **options)
    plain, constant = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = build_optimizer([{"params": [plain]}, {"params": [constant], CONSTANT_RATE: True}], config)
    trainer = object.__new__(Trainer)
    trainer.job, trainer.config = SimpleNamespace(total_steps=TOTAL), SimpleNamespace(optimizer=config)
    found = []
    for trainer.step in range(TOTAL):
        logged = trainer._set_rate(optimizer)
        found.append((logged, *(group["lr"] for group in optimizer.param_groups)))
    return found


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_a_group_that_keeps_its_rate_climbs_with_the_others_and_stays(name):
    logged, plain, constant = zip(*rates(name, warmup_fraction=0.3, final_fraction=0.1), strict=True)
    assert logged == plain
    assert constant[:4] == plain[:4] == pytest.approx((0.125, 0.25, 0.375, 0.5))
    assert constant[4:] == (0.5,) * 6
    assert list(plain[3:]) == sorted(plain[3:], reverse=True)
    assert plain[-1] < 0.2


def test_without_warm_up_it_is_constant_from_the_first_step():
    assert [constant for _, _, constant in rates("sgd", warmup_fraction=0.0)] == [0.5] * TOTAL
