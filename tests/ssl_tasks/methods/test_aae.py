"""Each phase's loss against loops written from the paper, what each phase moves, two processes against one."""

import copy
import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, rows, tiny, tiny_batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks.methods.aae import AAE, SPEC, AAEConfig, held
from ssl_tasks.methods.adversarial import taken_for_real_loss, told_apart_loss
from ssl_tasks.methods.base import Batch, Method
from ssl_tasks.randomness import normal, row_keys
from ssl_tasks.training.collectives import convert_sync_batchnorm, world_size

SMALL = {"latent_dim": 3, "discriminator_width": 5, "decoder_width": 4}


def naive_discriminator(of_prior: Tensor, of_codes: Tensor) -> Tensor:
    """The negative of section 1.1's value, draw by draw."""
    real = [torch.log(1 / (1 + torch.exp(-logit))) for logit in of_prior.flatten()]
    false = [torch.log(1 - 1 / (1 + torch.exp(-logit))) for logit in of_codes.flatten()]
    return -(sum(real) / len(real) + sum(false) / len(false))


def naive_generator(of_codes: Tensor) -> Tensor:
    return -sum(torch.log(1 / (1 + torch.exp(-logit))) for logit in of_codes.flatten()) / len(of_codes)


def test_the_adversarial_losses_and_their_gradients_against_the_paper():
    inputs = [rows(5, 1, seed=seed) for seed in (0, 1)]
    assert_same_loss_and_gradients(told_apart_loss, naive_discriminator, inputs)
    assert_same_loss_and_gradients(taken_for_real_loss, naive_generator, inputs[:1])
    zero = torch.zeros(2, 1)
    assert told_apart_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert taken_for_real_loss(zero).item() == pytest.approx(math.log(2))


def test_a_sure_discriminator_leaves_the_generator_a_finite_loss_and_a_gradient():
    logits = torch.full((2, 1), -200.0, requires_grad=True)
    loss = taken_for_real_loss(logits)
    loss.backward()
    assert loss.item() == 200.0
    assert logits.grad.tolist() == [[-0.5], [-0.5]]


def test_each_phase_computes_its_loss():
    method = tiny(SPEC, prior_std=2.0, **SMALL)
    batch = tiny_batch(method)
    (x,) = batch.views
    codes = method.code(method.backbone(x))
    error = (method.decoder(codes) - x).square().sum() / x.numel()
    torch.testing.assert_close(method(batch, "main")["loss"], error)
    prior = 2.0 * normal(batch.keys, "aae.prior", 3, torch.float64)
    of_prior, of_codes = method.discriminator(prior), method.discriminator(codes)
    output = method(batch, "discriminator")
    torch.testing.assert_close(output["loss"], naive_discriminator(of_prior, of_codes))
    right = (of_prior > 0).sum() + (of_codes < 0).sum()
    assert output["accuracy"].item() == pytest.approx(right.item() / 16)
    torch.testing.assert_close(method(batch, "generator")["loss"], naive_generator(of_codes))


PARTS = ("backbone", "code", "decoder", "discriminator")


@pytest.mark.parametrize(
    ("phase", "reached"),
    [
        ("main", {"backbone", "code", "decoder"}),
        ("discriminator", {"discriminator"}),
        ("generator", {"backbone", "code"}),
    ],
)
def test_a_phase_reaches_and_moves_its_own_part(phase, reached):
    method = tiny(SPEC, feature_weight=1.0, **SMALL)
    method(tiny_batch(method), phase)["loss"].backward()
    for part in PARTS:
        gradients = [p.grad for p in getattr(method, part).parameters()]
        assert all((gradient is not None) == (part in reached) for gradient in gradients), part
    moved = {id(p) for group in method.param_groups(phase) for p in group["params"]}
    assert moved == {id(p) for part in reached for p in getattr(method, part).parameters()}


def test_weights_decay_once_a_step():
    method = tiny(SPEC, **SMALL)
    decayed = [
        id(p)
        for phase in method.phases
        for group in method.param_groups(phase)
        if group.get("weight_decay") != 0.0
        for p in group["params"]
    ]
    assert len(decayed) == len(set(decayed))
    assert set(decayed) == {id(p) for p in method.parameters() if p.ndim >= 2}


def test_the_feature_term_is_the_distance_of_directions_and_leaves_the_encoder_as_a_measure_alone():
    method = tiny(SPEC, feature_weight=0.5, **SMALL)
    batch = tiny_batch(method)
    (x,) = batch.views
    judge = copy.deepcopy(method.backbone).requires_grad_(False)
    output = method(batch, "main")
    weights = [*method.backbone.parameters(), *method.code.parameters(), *method.decoder.parameters()]
    found = torch.autograd.grad(output["loss"], weights)
    features = method.backbone(x)
    made = method.decoder(method.code(features))
    pairs = zip(judge(made), features.detach(), strict=True)
    distances = [((a / a.norm() - b / b.norm()) ** 2).sum() for a, b in pairs]
    distance = sum(distances) / len(distances)
    torch.testing.assert_close(output["feature_distance"], distance.detach())
    expected = torch.autograd.grad((made - x).square().mean() + 0.5 * distance, weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert "feature_distance" not in tiny(SPEC, **SMALL)(batch, "main")


def test_a_held_module_takes_no_gradient_and_no_statistics():
    norm = nn.BatchNorm1d(3).double()
    before = copy.deepcopy(norm.state_dict())
    x = rows(4, 3, seed=0).requires_grad_()
    y = held(norm, x)
    torch.testing.assert_close(y, (x - x.mean(0)) / (x.var(0, correction=0) + norm.eps).sqrt())
    y.square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in norm.parameters())
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


class Linear(nn.Linear):
    num_features = 2


def test_the_codes_come_to_have_the_priors_mean_and_deviation():
    """Without reconstruction the game alone: codes that start far away are drawn to a normal of deviation 0.5."""
    torch.manual_seed(0)
    config = AAEConfig(name="aae", latent_dim=1, prior_std=0.5, discriminator_width=16, decoder_width=4)
    method = AAE(config, Linear(1, 2), (1,))
    with torch.no_grad():
        method.code.bias += 3.0
    x = rows(256, 1, seed=0).float()
    optimizers = {
        phase: torch.optim.Adam(method.param_groups(phase), lr=rate, betas=(0.5, 0.99))
        for phase, rate in (("discriminator", 0.01), ("generator", 0.003))
    }
    means, deviations = [], []
    for step in range(800):
        batch = Batch([x], torch.arange(256), row_keys(0, step, torch.arange(256)))
        for phase, optimizer in optimizers.items():
            optimizer.zero_grad()
            method(batch, phase)["loss"].backward()
            optimizer.step()
        codes = method.code(method.backbone(x)).detach()
        means.append(float(codes.mean()))
        deviations.append(float(codes.std()))
    assert means[0] > 2.0
    assert abs(sum(means[-200:])) / 200 < 0.2
    assert sum(deviations[-200:]) / 200 == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("field", "value"),
    [("prior_std", 0.0), ("latent_dim", 0), ("discriminator_width", 0), ("feature_weight", -1.0), ("decoder_width", 0)],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        AAEConfig(name="aae", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    """Scalars of every phase, weights and statistics after two steps, each phase with plain SGD of its own."""
    method: Method = tiny(SPEC, feature_weight=0.5, **SMALL)
    batch = tiny_batch(method)
    module: nn.Module = convert_sync_batchnorm(method, "cpu")
    if world_size() > 1:
        module = DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )
    optimizers = {phase: torch.optim.SGD(method.param_groups(phase), lr=0.1) for phase in method.phases}
    results = {}
    for _ in range(2):
        for phase, optimizer in optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            output = module(batch, phase)
            output["loss"].backward()
            optimizer.step()
            named = {name if phase == "main" else f"{phase} {name}": value for name, value in output.items()}
            results |= {f"mean {name}": value.detach().double() for name, value in named.items()}
    results |= {f"weight {name}": p.detach() for name, p in method.named_parameters()}
    return results | {f"buffer {name}": b for name, b in method.named_buffers()}


def test_two_ranks_compute_losses_weights_and_statistics_of_one(run_ranks):
    alone = in_ranks()
    assert {"mean loss", "mean discriminator loss", "mean generator loss", "mean feature_distance"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
