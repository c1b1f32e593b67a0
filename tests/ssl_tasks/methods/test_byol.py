"""BYOL's regression against loops written from the paper; the teacher; two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.methods.byol import SPEC, BYOLConfig, regression_loss
from ssl_tasks.methods.teachers import cosine_momentum

SMALL = {"hidden_dim": 7, "out_dim": 3}


def naive_regression(predicted: Tensor, target: Tensor) -> Tensor:
    """Equation 2 of arXiv 2006.07733, row by row."""
    losses = []
    for p, z in zip(predicted, target, strict=True):
        p, z = (v / torch.sqrt(sum(x * x for x in v)) for v in (p, z))
        losses.append(sum((a - b) ** 2 for a, b in zip(p, z, strict=True)))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_against_the_paper():
    target = rows(5, 3, seed=1)
    assert_same_loss_and_gradients(
        lambda p: regression_loss(p, target), lambda p: naive_regression(p, target), [rows(5, 3, seed=0)]
    )


def test_the_target_takes_no_gradient():
    predicted, target = (rows(5, 3, seed=seed).requires_grad_() for seed in (0, 1))
    regression_loss(predicted, target).backward()
    assert target.grad is None
    assert float(predicted.grad.abs().sum()) > 0


def test_the_forward_sums_both_directions_each_view_normalized_alone():
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    online = [method.predictor(method.projector(method.backbone(view))) for view in batch.views]
    targets = [method.teacher.network(view) for view in batch.views]
    expected = naive_regression(online[0], targets[1]) + naive_regression(online[1], targets[0])
    torch.testing.assert_close(method(batch, "main")["loss"], expected)


@pytest.mark.parametrize(("field", "value"), [("momentum", 1.0), ("momentum", -0.1), ("hidden_dim", 0), ("out_dim", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        BYOLConfig(name="byol", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_the_momentum_climbs_from_its_base_to_1():
    assert cosine_momentum(0.9, 0.0) == pytest.approx(0.9)
    assert cosine_momentum(0.9, 0.25) == pytest.approx(1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2)
    assert cosine_momentum(0.9, 0.5) == pytest.approx(0.95)
    assert cosine_momentum(0.9, 1.0) == 1.0


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.8), (0.5, 0.9), (1.0, 1.0)])
def test_the_teacher_follows_with_that_momentum_and_takes_no_gradient(progress, momentum):
    method = tiny(SPEC, momentum=0.8, **SMALL)
    method(tiny_batch(method), "main")["loss"].backward()
    kept = list(method.teacher.parameters())
    students = [*method.backbone.parameters(), *method.projector.parameters()]
    assert all(parameter.grad is None for parameter in kept)
    before = [parameter.clone() for parameter in kept]
    with torch.no_grad():
        for student in students:
            student += 1.0
    method.after_step(progress)
    for parameter, old, student in zip(kept, before, students, strict=True):
        torch.testing.assert_close(parameter, momentum * old + (1 - momentum) * student)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, momentum=0.5, **SMALL)


def test_two_ranks_compute_the_loss_gradients_and_teacher_of_one(run_ranks):
    alone = in_ranks()
    assert any(key.startswith("teacher teacher.network.") for key in alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
