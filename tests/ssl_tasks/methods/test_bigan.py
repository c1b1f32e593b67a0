"""The minimax loss of pairs against the paper, what each phase moves, codes that are found again, two ranks."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import SHAPE, assert_ranks_agree, one_step, rows, tiny, tiny_batch
from torch import Tensor, nn

from ssl_tasks.methods.bigan import SPEC, BiGANConfig, JointDiscriminator
from ssl_tasks.randomness import uniform

OPTIONS = {"latent_dim": 3, "generator_width": 4, "discriminator_width": 4, "hidden_dim": 8}


def naive_value(method: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    """V(D, E, G), equation 3 of arXiv 1605.09782, pair by pair; `swapped` exchanges the labels (section 3.4)."""
    encoded, made = method.to_code(method.backbone(x)), method.generator(z)
    values = {}
    for name, images, codes in (("real", x, encoded), ("fake", made, z)):
        values[name] = [torch.sigmoid(method.discriminator(images[[i]], codes[[i]]))[0] for i in range(len(x))]
    value = sum(torch.log(p) for p in values["real"]) + sum(torch.log(1 - p) for p in values["fake"])
    swapped = sum(torch.log(1 - p) for p in values["real"]) + sum(torch.log(p) for p in values["fake"])
    return torch.stack([value, swapped]) / len(x)


def test_losses_and_gradients_against_the_paper():
    method = tiny(SPEC, **OPTIONS)
    batch = tiny_batch(method)
    for number, phase in enumerate(method.phases):
        codes = 2 * uniform(batch.keys, f"bigan.{phase}", 3, torch.float64) - 1
        moved = [p for group in method.param_groups(phase) for p in group["params"]]
        loss, expected = method(batch, phase)["loss"], -naive_value(method, batch.views[0], codes)[number]
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
        for a, b in zip(torch.autograd.grad(loss, moved), torch.autograd.grad(expected, moved), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_each_phase_moves_its_own_and_the_discriminators_graph_ends_at_the_pairs():
    method = tiny(SPEC, **OPTIONS)
    names = {id(p): name.partition(".")[0] for name, p in method.named_parameters()}
    moved = {
        phase: {names[id(p)] for group in method.param_groups(phase) for p in group["params"]}
        for phase in method.phases
    }
    assert moved == {"discriminator": {"discriminator"}, "generator": {"backbone", "to_code", "generator"}}
    method(tiny_batch(method), "discriminator")["loss"].backward()
    others = [method.backbone, method.to_code, method.generator]
    assert all(p.grad is None for module in others for p in module.parameters())


def test_codes_are_even_in_minus_one_to_one_follow_the_keys_and_differ_between_phases():
    method = tiny(SPEC, **OPTIONS)
    seen = []
    method.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = tiny_batch(method)
    for phase in ("discriminator", "generator", "discriminator"):
        method(batch, phase)
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])
    batch.views, batch.keys = [batch.views[0].repeat(200, 1, 1, 1)], torch.arange(1600)
    method(batch, "generator")
    assert seen[-1].min() > -1
    assert seen[-1].max() < 1
    assert seen[-1].mean().item() == pytest.approx(0, abs=0.03)
    assert seen[-1].square().mean().item() == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 8, 8), (2, 28, 20), (1, 5, 33)])
def test_the_discriminator_takes_images_of_any_size_and_sees_all_of_them_and_the_code(shape):
    discriminator = JointDiscriminator(shape, 3, 4, 8).double()
    images, codes = rows(2, *shape, seed=0).requires_grad_(), rows(2, 3, seed=1).requires_grad_()
    logits = discriminator(images, codes)
    assert logits.shape == (2,)
    slopes = torch.autograd.grad(logits[0], (images, codes))
    assert (slopes[0][0].abs().sum(dim=0) > 0).all()
    assert (slopes[1][0] != 0).all()
    assert not slopes[0][1].any()
    assert not slopes[1][1].any()


class Level(nn.Module):
    """The grey level of an image that has but one; what `Fill` inverts."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3), keepdim=True)[:, :, 0, 0]


class Fill(nn.Module):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, codes: Tensor) -> Tensor:
        return (self.sign * codes)[:, :, None, None].expand(-1, *SHAPE)


def told_apart_after_steps(sign: float) -> float:
    method = tiny(SPEC, **(OPTIONS | {"latent_dim": 1, "hidden_dim": 16}))
    method.backbone, method.to_code, method.generator = Level(), nn.Identity(), Fill(sign)
    optimizer = torch.optim.Adam(method.discriminator.parameters(), 3e-3)
    batch, losses = tiny_batch(method), []
    for step in range(100):
        levels = 2 * uniform(torch.arange(64) + 64 * step, "levels", 1, torch.float64) - 1
        batch.views, batch.keys = [Fill(1.0)(levels)], torch.arange(64) + 64 * step
        loss = method(batch, "discriminator")["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sum(losses[-20:]) / 20


def test_pairs_cannot_be_told_apart_only_where_encoder_and_generator_invert_each_other():
    """Section 3.3 of the paper, on images and codes that are each alike in both cases: only the pairs differ."""
    assert told_apart_after_steps(1.0) > 1.35
    assert told_apart_after_steps(-1.0) < 1.1


@pytest.mark.parametrize("field", ["latent_dim", "generator_width", "discriminator_width", "hidden_dim"])
def test_wrong_values_are_refused_by_key(field):
    with pytest.raises(ValidationError) as caught:
        BiGANConfig(name="bigan", **{field: 0})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, **OPTIONS)


def test_two_ranks_compute_the_losses_and_gradients_of_one(run_ranks):
    alone = in_ranks()
    assert {"mean discriminator loss", "mean generator loss"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
