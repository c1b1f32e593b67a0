"""Holes pixel by pixel, both losses against loops written from the paper, both phases in two processes against one."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import SHAPE, TinyConv, assert_ranks_agree, assert_same_loss_and_gradients, rows, tiny, tiny_batch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.adversarial import told_apart_loss
from ssl_tasks.methods.inpainting import (
    SPEC,
    InpaintingConfig,
    entry_weights,
    holes,
    reconstruction_loss,
)
from ssl_tasks.randomness import row_keys
from ssl_tasks.training.collectives import convert_sync_batchnorm, world_size

KEYS = row_keys(0, 0, torch.arange(200))


def config(**options: object) -> InpaintingConfig:
    return InpaintingConfig(name="inpainting", **options)


def naive_reconstruction(painted: Tensor, clean: Tensor, hole: Tensor, border: int, border_weight: float) -> Tensor:
    """Equation 1 of arXiv 1604.07379 with section 3.2's weight for the overlap, entry by entry."""
    total = 0.0
    _, channels, height, width = clean.shape
    for b in range(len(clean)):
        error = weights = 0.0
        for i, j in itertools.product(range(height), range(width)):
            near = hole[b, 0, max(0, i - border) : i + border + 1, max(0, j - border) : j + border + 1].any()
            weight = 1.0 if hole[b, 0, i, j] else border_weight if near else 0.0
            for c in range(channels):
                error = error + weight * (painted[b, c, i, j] - clean[b, c, i, j]) ** 2
                weights += weight
        total = total + error / weights
    return total / len(clean)


@pytest.mark.parametrize(("border", "border_weight"), [(0, 10.0), (1, 10.0), (2, 3.0), (1, 0.0)])
@pytest.mark.parametrize("kind", ["random", "center"])
def test_reconstruction_loss_and_its_gradient_against_the_paper(border, border_weight, kind):
    hole = holes(KEYS[:2], (5, 6), config(hole=kind, num_blocks=2))
    weight = entry_weights(hole, border, border_weight)
    assert_same_loss_and_gradients(
        lambda painted, clean: reconstruction_loss(painted, clean, weight),
        lambda painted, clean: naive_reconstruction(painted, clean, hole, border, border_weight),
        [rows(2, 2, 5, 6, seed=0), rows(2, 2, 5, 6, seed=1)],
    )


def test_discriminator_loss_and_its_gradient_against_the_paper():
    """Equation 2, image by image."""
    assert_same_loss_and_gradients(
        told_apart_loss,
        lambda real, painted: (
            sum(
                -torch.log(1 / (1 + torch.exp(-a))) - torch.log(1 - 1 / (1 + torch.exp(-b)))
                for a, b in zip(real, painted, strict=True)
            )
            / 5
        ),
        [rows(5, seed=0), rows(5, seed=1)],
    )
    assert float(told_apart_loss(torch.zeros(3), torch.zeros(3))) == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("sides", "area", "rows_columns"),
    [
        ((8, 8), 0.25, (slice(2, 6), slice(2, 6))),
        ((10, 21), 0.25, (slice(2, 7), slice(5, 15))),
        ((8, 8), 0.01, (slice(3, 4), slice(3, 4))),
    ],
)
def test_a_central_hole_is_in_the_middle_of_every_image(sides, area, rows_columns):
    found = holes(KEYS[:3], sides, config(hole="center", area=area))
    expected = torch.zeros(3, 1, *sides, dtype=torch.bool)
    expected[:, :, rows_columns[0], rows_columns[1]] = True
    assert torch.equal(found, expected)


def test_random_holes_are_blocks_anywhere_drawn_by_each_rows_own_key():
    found = holes(KEYS, (12, 12), config(num_blocks=1))
    for hole in found[:, 0]:
        high, wide = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
        assert len(high) == len(wide) == 6
        assert hole[high[0] : high[-1] + 1, wide[0] : wide[-1] + 1].all()
        assert int(hole.sum()) == 36
    assert found.flatten(1).float().unique(dim=0).shape[0] > 40  # of 49 places
    assert torch.equal(found[50:60], holes(KEYS[50:60], (12, 12), config(num_blocks=1)))
    assert not torch.equal(found, holes(row_keys(0, 1, torch.arange(200)), (12, 12), config(num_blocks=1)))


def test_random_blocks_share_the_area():
    found = holes(KEYS, (16, 16), config(area=0.25, num_blocks=4)).float().mean((1, 2, 3))
    assert 0.0625 <= float(found.min()) < float(found.max()) == 0.25


def test_only_what_is_in_the_hole_is_hidden_from_the_backbone():
    method = tiny(SPEC, adversarial_weight=0.0, decoder_width=4)
    batch = tiny_batch(method)
    hole = holes(batch.keys, SHAPE[1:], method.config)
    seen = []
    method.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method(batch, "main")
    hidden = hole.expand_as(seen[0])
    assert (seen[0][hidden] == 0).all()
    assert torch.equal(seen[0][~hidden], batch.views[0][~hidden])


def test_the_loss_is_the_weighted_sum_of_both_terms_and_the_discriminator_sees_completed_images():
    method = tiny(SPEC, decoder_width=4, adversarial_weight=0.25, overlap=0.1)
    batch = tiny_batch(method)
    (clean,) = batch.views
    hole = holes(batch.keys, SHAPE[1:], method.config)
    painted = method.decoder(method.backbone(clean.masked_fill(hole, 0.0)))
    reconstruction = naive_reconstruction(painted, clean, hole, 1, 10.0)
    completed = clean.clone()
    completed[hole.expand_as(clean)] = painted[hole.expand_as(clean)]
    judged = method.discriminator(completed)
    adversarial = -torch.log(1 / (1 + torch.exp(-judged))).mean()
    output = method(batch, "main")
    torch.testing.assert_close(output["loss"], 0.75 * reconstruction + 0.25 * adversarial)
    torch.testing.assert_close(output["reconstruction"], reconstruction.detach())
    torch.testing.assert_close(output["adversarial"], adversarial.detach())
    found = method(batch, "discriminator")
    real = method.discriminator(clean)
    torch.testing.assert_close(found["loss"], told_apart_loss(real, judged))
    assert found["accuracy"] == torch.cat([real > 0, judged < 0]).float().mean()


def test_the_discriminators_phase_moves_nothing_else_and_learns_to_tell():
    method = tiny(SPEC, decoder_width=4)
    batch = tiny_batch(method)
    optimizer = torch.optim.Adam(method.param_groups("discriminator"), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = method(batch, "discriminator")["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None for n, p in method.named_parameters() if not n.startswith("discriminator."))
    fooled = method(batch, "main")
    fooled["loss"].backward()
    assert float(method.decoder.to_image.weight.grad.abs().sum()) > 0


def test_without_an_adversarial_term_there_is_one_phase_and_no_discriminator():
    method = tiny(SPEC, adversarial_weight=0.0)
    assert method.phases == ("main",)
    assert not any("discriminator" in name for name, _ in method.named_parameters())
    assert set(method(tiny_batch(method), "main")) == {"loss"}
    assert tiny(SPEC).phases == ("main", "discriminator")
    assert method.phases == ("main",)


@pytest.mark.parametrize(("side", "border"), [(128, 7), (32, 2), (8, 1)])
def test_the_overlap_is_the_papers_seven_pixels_of_128(side, border):
    assert SPEC.method(config(decoder_width=1), TinyConv(), (2, side, side)).border == border


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("hole", "left"), ("area", 0.0), ("area", 1.0), ("num_blocks", 0), ("overlap", 0.5), ("decoder_width", 0)],
        *[("overlap_weight", -1.0), ("adversarial_weight", 1.0), ("adversarial_weight", -0.1)],
    ],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        config(**{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_a_hole_that_leaves_nothing_is_refused_by_key():
    with pytest.raises(RequestError, match=r"pretrain\.method\.area: 0\.9 leaves nothing of 4 x 4 px"):
        SPEC.method(config(hole="center", area=0.9), TinyConv(), (2, 4, 4))


def in_ranks() -> dict[str, Tensor]:
    """As `tests_ranks.one_step`, phase after phase, each with its own parameters."""
    method = tiny(SPEC, decoder_width=4, adversarial_weight=0.3)
    batch = tiny_batch(method)
    module = convert_sync_batchnorm(method, "cpu")
    if world_size() > 1:
        module = DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)
    results = {}
    for phase in method.phases:
        moved = [weight for group in method.param_groups(phase) for weight in group["params"]]
        for weight in moved:
            weight.grad = None
        output = module(batch, phase)
        output["loss"].backward()
        prefix = "" if phase == "main" else f"{phase} "
        results |= {f"mean {prefix}{name}": value.detach().double() for name, value in output.items()}
        with torch.no_grad():
            for number, weight in enumerate(moved):
                results[f"grad {phase} {number}"] = weight.grad.clone()
                weight -= 0.1 * weight.grad
    return results | {f"buffer {name}": b for name, b in method.named_buffers()}


def test_two_ranks_compute_both_phases_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
