"""Schedules, steps and the error against the papers, how far the short path sees, two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.diffusion import (
    SPEC,
    DiffusionConfig,
    NoiseDecoder,
    add_noise,
    embed_steps,
    noise_loss,
    signal_shares,
)


def test_the_linear_schedule_step_by_step():
    """DDPM, section 4: beta from 1e-4 to 0.02 in 1,000 steps, alpha-bar their product."""
    shares, product = signal_shares("linear", 1000), 1.0
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        assert shares[t].item() == pytest.approx(product, rel=1e-9)
    assert shares[-1].item() == pytest.approx(4e-5, rel=0.02)  # nothing of the image is left
    assert signal_shares("linear", 200)[-1].item() == pytest.approx(4e-5, rel=0.5)


def test_the_cosine_schedule_step_by_step():
    """Equation 17 of arXiv 2102.09672; its betas, clipped at 0.999, differ from it in the last step alone."""
    shares = signal_shares("cosine", 100)
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    for t in range(1, 100):
        expected = math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 / start
        assert shares[t - 1].item() == pytest.approx(expected, rel=1e-9)
    assert shares[99].item() == pytest.approx(shares[98].item() * 0.001, rel=1e-9)


def test_noise_is_laid_over_by_hand_and_keeps_the_variance():
    clean, noise = torch.full((2, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1), 10.0)
    assert add_noise(clean, noise, torch.tensor([1.0, 0.36])).flatten().tolist() == pytest.approx([2.0, 1.2 + 8.0])
    noisy = add_noise(rows(1, 1, 300, 300, seed=0), rows(1, 1, 300, 300, seed=1), torch.tensor([0.3]).double())
    assert noisy.std().item() == pytest.approx(1.0, abs=0.02)


def naive_noise_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Equation 14 of DDPM, entry by entry, a row's sum taken as a mean."""
    total = 0.0
    for mine, true in zip(predicted.flatten(1), noise.flatten(1), strict=True):
        total = total + sum((a - b) ** 2 for a, b in zip(true, mine, strict=True)) / len(true)
    return total / len(noise)


def test_the_error_and_its_gradient_against_the_paper():
    inputs = [rows(3, 2, 2, 3, seed=seed) for seed in range(2)]
    assert_same_loss_and_gradients(noise_loss, naive_noise_loss, inputs)


def test_steps_are_embedded_in_sines_and_cosines():
    found = embed_steps(torch.tensor([0, 3]), 6, torch.float64)
    frequencies = [1.0, 0.01, 0.0001]
    for row, t in zip(found, (0, 3), strict=True):
        assert row.tolist() == pytest.approx(
            [math.sin(t * f) for f in frequencies] + [math.cos(t * f) for f in frequencies]
        )
    assert len(embed_steps(torch.arange(1, 1001), 64, torch.float32).unique(dim=0)) == 1000
    assert embed_steps(torch.tensor([5]), 2, torch.float32).shape == (1, 2)


def record(method, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the backbone saw, what the decoder was given, and what it was to predict."""
    seen = []
    hooks = [
        method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        method.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[1:])),
        method.decoder.register_forward_hook(lambda *_: torch.zeros(batch.views[0].shape, dtype=torch.float64)),
    ]
    method(batch, "main")
    for hook in hooks:
        hook.remove()
    return tuple(seen)


def test_backbone_and_decoder_see_the_image_under_the_noise_of_its_step():
    method = tiny(SPEC, decoder_width=4, schedule="cosine", num_steps=50)
    batch = tiny_batch(method)
    noisy, again, steps = record(method, batch)
    assert torch.equal(noisy, again)
    share = signal_shares("cosine", 50)[steps - 1][:, None, None, None]
    noise = (noisy - share.sqrt() * batch.views[0]) / (1 - share).sqrt()
    assert noise.mean().item() == pytest.approx(0, abs=0.15)
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    # the loss is against that very noise
    method.decoder.register_forward_hook(lambda *_: noise)
    assert method(batch, "main")["loss"].item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(("max_step", "last"), [(1.0, 10), (0.3, 3), (0.1, 1)])
def test_steps_are_drawn_evenly_up_to_the_last_that_is_asked_for(max_step, last):
    method = tiny(SPEC, decoder_width=2, num_steps=10, max_step=max_step)
    keys = torch.arange(3000)
    steps = record(method, Batch([torch.zeros(3000, 2, 6, 6).double()], keys, keys))[2]
    counts = steps.bincount(minlength=last + 1)
    assert counts[0] == 0
    assert len(counts) == last + 1
    assert (counts[1:] / 3000 - 1 / last).abs().max() < 0.03


def test_steps_and_noise_of_a_row_follow_its_key_alone():
    method = tiny(SPEC, decoder_width=2)
    batch = tiny_batch(method)
    part = Batch([batch.views[0][3:5]], batch.positions[3:5], batch.keys[3:5])
    for whole, some in zip(record(method, batch), record(method, part), strict=True):
        assert torch.equal(whole[3:5], some)
    other = Batch(batch.views, batch.positions, batch.keys + 100)
    assert not torch.equal(record(method, batch)[0], record(method, other)[0])


def test_the_short_path_sees_seven_pixels_and_the_features_reach_all():
    decoder = NoiseDecoder(5, (1, 15, 15), 8).double()
    features = rows(1, 5, seed=0).requires_grad_()
    noisy = rows(1, 1, 15, 15, seed=1).requires_grad_()
    noise = decoder(features, noisy, torch.tensor([7]))
    slopes = torch.autograd.grad(noise[0, 0, 7, 7], (features, noisy), retain_graph=True)
    reached = slopes[1][0, 0].nonzero()
    assert reached.min(dim=0).values.tolist() == [4, 4]
    assert reached.max(dim=0).values.tolist() == [10, 10]
    assert (slopes[0] != 0).all()
    assert not torch.equal(noise, decoder(features, noisy, torch.tensor([8])))


@pytest.mark.parametrize(
    ("field", "value"),
    [("schedule", "sigmoid"), ("num_steps", 0), ("max_step", 0.0), ("max_step", 1.1), ("decoder_width", 3)],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        DiffusionConfig(name="diffusion", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_a_share_of_less_than_one_step_is_refused():
    with pytest.raises(ValidationError, match=r"max_step: 0\.05 of 10 steps is not one whole step"):
        DiffusionConfig(name="diffusion", num_steps=10, max_step=0.05)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, decoder_width=4)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
