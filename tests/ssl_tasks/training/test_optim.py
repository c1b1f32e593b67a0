"""Optimizers against their papers, exact learning rates, clipping, averaged weights."""

import copy
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ssl_tasks.training.optim import LARS, Ema, OptimizerConfig, build_optimizer, clip, lr_at


def naive_lars(weight, grads, lr, momentum, decay, trust):
    """Algorithm 1 of arXiv 1708.03888, one tensor; vectors are excluded as in SimCLR."""
    weight, velocity = weight.copy(), np.zeros_like(weight)
    for grad in grads:
        rate = lr
        if weight.ndim >= 2:
            weight_norm, grad_norm = np.sqrt((weight**2).sum()), np.sqrt((grad**2).sum())
            if weight_norm > 0 and grad_norm > 0:
                rate = lr * trust * weight_norm / (grad_norm + decay * weight_norm)
            grad = grad + decay * weight
        velocity = momentum * velocity + rate * grad
        weight = weight - velocity
    return weight


@pytest.mark.parametrize("start", ["random", "zero"])
def test_lars_against_the_paper(start):
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (3,), (2, 3, 2, 2)]
    weights = [rng.normal(size=shape) * (start == "random") for shape in shapes]
    grads = [[rng.normal(size=shape) for _ in range(4)] for shape in shapes]
    params = [nn.Parameter(torch.from_numpy(weight.copy())) for weight in weights]
    optimizer = LARS([{"params": params}], lr=0.7, momentum=0.8, weight_decay=0.05, trust=0.02)
    for step in range(4):
        for param, grad in zip(params, grads, strict=True):
            param.grad = torch.from_numpy(grad[step])
        optimizer.step()
    for param, weight, grad in zip(params, weights, grads, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), naive_lars(weight, grad, 0.7, 0.8, 0.05, 0.02), rtol=1e-12)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_every_optimizer_honours_its_config_and_resumes_exactly(name):
    config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.3, momentum=0.5, betas=(0.8, 0.9))

    def steps(optimizer, param, count):
        for _ in range(count):
            optimizer.zero_grad()
            (param**2).sum().backward()
            optimizer.step()

    def make():
        matrix, vector = nn.Parameter(torch.eye(2)), nn.Parameter(torch.ones(2))
        groups = [{"params": [matrix]}, {"params": [vector], "weight_decay": 0.0}]
        return matrix, build_optimizer(groups, config)

    matrix, optimizer = make()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    if name == "adamw":
        assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
    else:
        assert optimizer.param_groups[0]["momentum"] == 0.5
    steps(optimizer, matrix, 2)
    resumed, other = make()
    resumed.data.copy_(matrix.data)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as a checkpoint does: loading shares tensors
    steps(optimizer, matrix, 2)
    steps(other, resumed, 2)
    assert torch.equal(matrix, resumed)


@pytest.mark.parametrize(
    ("field", "value"), [("lr", 0), ("weight_decay", -1), ("momentum", 1), ("betas", (0.9, 1.0)), ("name", "adam")]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        OptimizerConfig(**{field: value})
    assert caught.value.errors()[0]["loc"][0] == field


def test_lr_of_every_step():
    rates = [lr_at(step, 8, 3, 0.4, 0.1) for step in range(9)]
    cosine = [0.4 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 5)) / 2) for t in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, *cosine], rel=1e-15)
    assert rates[3] == 0.4
    assert rates[8] == pytest.approx(0.04)
    assert lr_at(0, 10, 0, 1.0) == 1.0
    assert lr_at(5, 10, 0, 1.0) == pytest.approx(0.5)
    assert lr_at(0, 1, 0, 1.0) == 1.0


def test_clip_scales_all_gradients_and_tells_the_norm():
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
    for given, left in [(None, 13.0), (26.0, 13.0), (6.5, 6.5)]:
        params[0].grad, params[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
        assert float(clip(params, given)) == 13.0
        assert float(torch.cat([params[0].grad, params[1].grad]).norm()) == pytest.approx(left, rel=1e-5)
    assert params[2].grad is None


def test_ema_averages_parameters_and_copies_buffers():
    module = nn.BatchNorm1d(2)
    ema, warm = Ema(module, 0.9, warmup=False), Ema(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(11.0)
        module.running_mean.fill_(7.0)
        module.num_batches_tracked.fill_(3)
    ema.update(module, 0)
    warm.update(module, 0)
    assert ema.averaged.weight.tolist() == pytest.approx([2.0, 2.0])
    assert warm.averaged.weight.tolist() == pytest.approx([10.0, 10.0])  # decay 1/10 at step 0
    warm.update(module, 1000)
    assert warm.averaged.weight.tolist() == pytest.approx([10.1, 10.1])
    assert ema.averaged.running_mean.tolist() == [7.0, 7.0]
    assert int(ema.averaged.num_batches_tracked) == 3
    assert not any(p.requires_grad for p in ema.parameters())
    assert not ema.averaged.training
    with pytest.raises(ValueError, match="decay"):
        Ema(module, 1.0)
