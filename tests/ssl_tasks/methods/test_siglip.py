"""SigLIP's loss against loops written from the paper; two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.methods.siglip import SPEC, SigLIPConfig, siglip_loss

SMALL = {"out_dim": 5, "text_width": 8, "text_depth": 1, "text_heads": 2}


def naive_siglip(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Algorithm 1 of arXiv 2303.15343, pair by pair."""
    total = 0.0
    for i, x in enumerate(images):
        for j, y in enumerate(texts):
            z = 1.0 if i == j else -1.0
            logit = torch.exp(log_scale) * (x / x.norm() * (y / y.norm())).sum() + bias
            total = total + torch.log(1 / (1 + torch.exp(-z * logit)))
    return -total / len(images)


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (1.0, 0.0), (40.0, 3.0)])
def test_loss_and_its_gradient_against_the_paper(scale, bias):
    inputs = [
        rows(5, 3, seed=0),
        rows(5, 3, seed=1),
        torch.tensor(math.log(scale)).double(),
        torch.tensor(bias).double(),
    ]
    assert_same_loss_and_gradients(siglip_loss, naive_siglip, inputs)


def step_in_rank() -> dict[str, Tensor]:
    return one_step(SPEC, **SMALL)


def test_two_ranks_learn_as_one_does(run_ranks):
    assert_ranks_agree(step_in_rank(), run_ranks(step_in_rank))


def test_it_starts_as_in_the_paper_and_learns_scale_and_bias():
    method = tiny(SPEC, **SMALL)
    output = method(tiny_batch(method), "main")
    assert output["logit_scale"].item() == pytest.approx(10.0)
    assert output["logit_bias"].item() == -10.0
    output["loss"].backward()
    assert method.log_scale.grad.abs().item() > 0
    assert method.bias.grad.item() < 0  # nearly all of the loss is that of the pairs which belong together


def test_a_negative_temperature_is_refused_by_name():
    with pytest.raises(ValidationError, match="temperature"):
        SigLIPConfig(name="siglip", temperature=-1.0)
