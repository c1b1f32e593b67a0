"""Adversarial losses and R1 against the papers, what each phase moves, two ranks against one."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import TinyConv, assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.methods.adversarial import taken_for_real_loss, told_apart_loss
from ssl_tasks.methods.gan import SPEC, GANConfig, r1_penalty
from ssl_tasks.training import loop
from ssl_tasks.training.config import OptimizerConfig
from ssl_tasks.training.optim import build_optimizer
from ssl_tasks.training.scalars import Scalars

OPTIONS = {"latent_dim": 3, "generator_width": 4}


def naive_told_apart(real: Tensor, fake: Tensor) -> Tensor:
    """The negative of equation 1 of arXiv 1406.2661, logit by logit."""
    gain_real = sum(torch.log(1 / (1 + torch.exp(-logit))) for logit in real) / len(real)
    gain_fake = sum(torch.log(1 - 1 / (1 + torch.exp(-logit))) for logit in fake) / len(fake)
    return -(gain_real + gain_fake)


def naive_taken_for_real(fake: Tensor) -> Tensor:
    return -sum(torch.log(torch.sigmoid(logit)) for logit in fake) / len(fake)


def test_losses_and_their_gradients_against_the_paper():
    logits = [rows(5, seed=0), rows(7, seed=1)]
    assert_same_loss_and_gradients(told_apart_loss, naive_told_apart, logits)
    assert_same_loss_and_gradients(taken_for_real_loss, naive_taken_for_real, logits[:1])


def test_losses_by_hand():
    chance = torch.zeros(4)
    assert told_apart_loss(chance, chance).item() == pytest.approx(2 * math.log(2))
    assert taken_for_real_loss(chance).item() == pytest.approx(math.log(2))
    sure = torch.tensor([200.0])  # where log(1 - sigmoid) would be infinite
    assert told_apart_loss(sure, -sure).item() == 0
    assert told_apart_loss(-sure, sure).item() == 400
    fooled = torch.tensor([-200.0], requires_grad=True)
    taken_for_real_loss(fooled).backward()
    assert fooled.grad.item() == -1  # the gradient does not vanish where the discriminator is sure
    assert told_apart_loss(sure.bfloat16(), sure.bfloat16()).dtype == torch.float32


def test_r1_is_half_the_squared_slope_of_each_image():
    """Equation 9 of arXiv 1801.04406 on a function whose gradient is known: x.A x / 2 + b.x, with slope A x + b."""
    images, b = rows(4, 1, 2, 3, seed=0).requires_grad_(), rows(6, seed=2)
    half = rows(6, 6, seed=1)
    A = half + half.T
    flat = images.flatten(1)
    penalty = r1_penalty((flat @ A * flat).sum(dim=1) / 2 + flat @ b, images)
    slopes = [A @ row + b for row in flat]
    expected = sum((slope * slope).sum() / 2 for slope in slopes) / 4
    torch.testing.assert_close(penalty, expected)
    # the penalty itself is differentiated: d/dx |A x + b|^2 / 2 = A (A x + b)
    (grad,) = torch.autograd.grad(penalty, images)
    torch.testing.assert_close(grad.flatten(1), torch.stack([A @ slope / 4 for slope in slopes]))


def test_the_discriminators_loss_adds_r1_of_real_images_row_by_row():
    method = tiny(SPEC, r1=10.0, **OPTIONS)
    batch = tiny_batch(method)
    before = {name: b.clone() for name, b in method.backbone.named_buffers()}
    output = method(batch, "discriminator")
    plain = tiny(SPEC, **OPTIONS)(batch, "discriminator")
    frozen = tiny(SPEC, **OPTIONS)
    frozen.load_state_dict(method.state_dict())
    frozen.eval()
    penalties = []
    for image in batch.views[0]:
        step = 1e-5 * torch.eye(image.numel(), dtype=torch.float64).view(-1, *image.shape)
        logit = [frozen.head(frozen.backbone(image + sign * step))[:, 0] for sign in (1, -1)]
        penalties.append(((logit[0] - logit[1]) / 2e-5).square().sum() / 2)
    expected = sum(penalties) / len(penalties)
    assert output["r1_penalty"].item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(output["loss"], plain["loss"] + 10 * output["r1_penalty"])
    assert all(module.training for module in method.modules())
    assert not torch.equal(before["layers.1.running_mean"], method.backbone.layers[1].running_mean)


def slopes_after_steps(r1: float) -> float:
    method = tiny(SPEC, r1=r1, **OPTIONS)
    optimizer = torch.optim.Adam(method.param_groups("discriminator")[0]["params"], lr=1e-2)
    for _ in range(20):
        output = method(tiny_batch(method), "discriminator")
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
    return output["r1_penalty"].item()


def test_r1_keeps_the_slopes_low():
    assert slopes_after_steps(100.0) < slopes_after_steps(1e-9) / 2


def test_real_and_fake_are_told_apart_by_their_level():
    """With batch norm in the trunk and a pass for each, images of one level would all be alike."""
    method = tiny(SPEC, **OPTIONS)
    real, fake = (torch.full((8, 2, 6, 6), level, dtype=torch.float64) for level in (1.0, -1.0))
    logits = method._judge(real, fake)
    assert (logits[0] - logits[1]).abs().min() > 0.1
    method.backbone.layers[1].reset_running_stats()
    method._judge(real, fake)
    together = copy.deepcopy(method.backbone.layers[1].running_mean)
    method.backbone.layers[1].reset_running_stats()
    method.backbone(torch.cat([real, fake]))
    assert torch.equal(together, method.backbone.layers[1].running_mean)


def test_each_phase_moves_its_own_and_the_discriminators_graph_ends_at_the_images():
    method = tiny(SPEC, **OPTIONS)
    names = {id(p): name.partition(".")[0] for name, p in method.named_parameters()}
    moved = {
        phase: {names[id(p)] for group in method.param_groups(phase) for p in group["params"]}
        for phase in method.phases
    }
    assert moved == {"discriminator": {"backbone", "head"}, "generator": {"generator"}}
    method(tiny_batch(method), "discriminator")["loss"].backward()
    assert all(p.grad is None for p in method.generator.parameters())
    for phase in method.phases:
        assert method.param_groups(phase)[1]["weight_decay"] == 0.0


def test_noise_follows_the_keys_and_differs_between_phases():
    method = tiny(SPEC, **OPTIONS)
    seen = []
    method.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for phase in ("discriminator", "generator", "discriminator"):
        method(tiny_batch(method), phase)
    assert seen[0].shape == (8, 3)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_the_generator_moves_towards_real_images_and_does_not_collapse_to_one():
    """Images of one grey level each, two levels: the mean of what is made approaches theirs, the levels spread."""
    method = tiny(SPEC, latent_dim=4, generator_width=8, r1=10.0)
    batch = tiny_batch(method)
    levels = torch.tensor([1.0, 3.0] * 4, dtype=torch.float64)
    batch.views = [levels[:, None, None, None].expand(8, 2, 6, 6) + 0.1 * batch.views[0]]
    optimizers = {
        phase: build_optimizer(method.param_groups(phase), OptimizerConfig(lr=3e-3, betas=(0.5, 0.999)))
        for phase in method.phases
    }
    noise = rows(200, 4, seed=5)
    start = method.generator(noise).mean().item()
    made = []
    for step in range(90):
        batch.keys = torch.arange(8) + 8 * step
        for phase, optimizer in optimizers.items():
            optimizer.zero_grad()
            method(batch, phase)["loss"].backward()
            optimizer.step()
        made.append(method.generator(noise).mean((1, 2, 3)).detach())
    late = torch.stack(made[30:])  # the two circle round each other
    assert abs(start) < 0.5
    assert late.mean().item() == pytest.approx(2.0, abs=0.5)
    assert late.std(dim=1).min().item() > 0.2


@pytest.mark.parametrize(("field", "value"), [("latent_dim", 0), ("generator_width", 0), ("r1", -1.0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        GANConfig(name="gan", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_the_loop_logs_the_sum_of_the_phases_as_the_loss():
    """The watchdog, the progress and the report read `loss`."""
    method = tiny(SPEC, **OPTIONS)
    trainer = object.__new__(loop.Trainer)
    trainer.config = SimpleNamespace(accumulate=2, precision="fp64", optimizer=OptimizerConfig())
    trainer.job = SimpleNamespace(total_steps=10)
    trainer.ranks, trainer.choice = SimpleNamespace(world=1, device=torch.device("cpu")), {"layout": "contiguous"}
    trainer.step, trainer.ema = 0, None
    trainer.scalars = Scalars(trainer.ranks, loop.Watchdog().check_loss)
    trainer.last_gradient, trainer.is_sharded = None, False
    trainer.method = trainer.call = method
    trainer.optimizers = {
        phase: build_optimizer(method.param_groups(phase), OptimizerConfig()) for phase in method.phases
    }
    for _ in range(2):
        trainer._step(tiny_batch(method))
    history = trainer.history
    assert {"discriminator_loss", "generator_loss", "discriminator_grad_norm", "generator_grad_norm"} <= set(history)
    sums = [a + b for a, b in zip(history["discriminator_loss"], history["generator_loss"], strict=True)]
    assert history["loss"] == pytest.approx(sums)
    assert len(history["loss"]) == 2


def test_a_backbone_of_other_data_is_left_in_training_mode():
    method = SPEC.method(GANConfig(name="gan", r1=1.0, **OPTIONS), TinyConv(), (2, 6, 6)).double()
    method.eval()
    method(tiny_batch(method), "discriminator")
    assert not method.backbone.training


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, r1=10.0, **OPTIONS)


def test_two_ranks_compute_the_losses_gradients_and_statistics_of_one(run_ranks):
    alone = in_ranks()
    assert {"mean discriminator loss", "mean generator loss", "mean discriminator r1_penalty"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
