"""Pairs of patches pixel by pixel, dropped colours, the loss against the paper, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import TinyConv, assert_ranks_agree, one_step, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.context_prediction import PLACES, SPEC, ContextPredictionConfig, layout, one_color, pairs
from ssl_tasks.methods.pieces import as_input
from ssl_tasks.randomness import row_keys

SMALL = {"hidden_dim": 8}


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((400, 500), (96, 48, 7)),
        ((32, 32), (7, 4, 1)),
        ((28, 28), (6, 3, 1)),
        ((10, 10), (2, 1, 0)),
        ((8, 9), (2, 1, 0)),
    ],
)
def test_patches_are_the_largest_of_which_three_fit_with_gaps_and_room_to_move(sides, expected):
    patch, between, move = layout(sides, 0.5, 7 / 96)
    assert (patch, between, move) == expected
    assert 3 * patch + 2 * between + 2 * move <= min(sides)


def test_every_place_is_told_by_where_the_patches_lie():
    side, count = 40, 800
    patch, between, move = layout((side, side + 3), 0.5, 0.1)
    assert move >= 1
    pixel = torch.arange(side * (side + 3), dtype=torch.float64).view(1, 1, side, side + 3).expand(count, 2, -1, -1)
    found, place = pairs(pixel, row_keys(0, 0, torch.arange(count)), 0.5, 0.1)
    assert found.shape == (count, 2, 2, patch, patch)
    corner = found[:, :, 0, 0, 0].long()
    rows, columns = corner // (side + 3), corner % (side + 3)
    expected = torch.tensor(PLACES)[place] * (patch + between)
    off = torch.stack([rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0]], dim=1) - expected
    assert set(off.unique().tolist()) == set(range(-2 * move, 2 * move + 1))
    assert place.bincount().tolist() == pytest.approx([count / 8] * 8, rel=0.35)
    for number in range(8):  # the first patch lies anywhere, whatever the place
        assert columns[place == number, 0].unique().tolist() == columns[:, 0].unique().tolist()
    assert not torch.equal(place, pairs(pixel, row_keys(0, 1, torch.arange(count)), 0.5, 0.1)[1])


def test_eight_places_surround_the_first_patch():
    assert sorted([*PLACES, (0, 0)]) == [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


def test_one_colour_stays_and_noise_of_a_hundredth_stands_for_the_others():
    patches = torch.ones(300, 2, 3, 4, 4)
    keys = row_keys(0, 0, torch.arange(300))
    found = one_color(patches, keys)
    kept = (found == 1).flatten(3).all(dim=3)  # (B, 2, C)
    assert (kept.sum(dim=2) == 1).all()
    assert kept.float().mean((0, 1)).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)
    assert bool((kept[:, 0] != kept[:, 1]).any())  # each patch for itself
    noise = found[~kept]
    assert float(noise.std()) == pytest.approx(0.01, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0.0, abs=3e-4)
    assert torch.equal(found[70:90], one_color(patches[70:90], keys[70:90]))  # chunks and batch make no difference
    grey = torch.randn(5, 2, 1, 4, 4)
    assert torch.equal(one_color(grey, keys[:5]), grey)


@pytest.mark.parametrize("drop_colors", [True, False])
def test_the_loss_and_its_gradient_against_the_paper(drop_colors):
    """-log of the share of the own place among eight, from both patches' features side by side (figure 3)."""
    method = tiny(SPEC, drop_colors=drop_colors, gap=0.0, jitter=0.0, **SMALL)
    batch = tiny_batch(method)
    patches, place = pairs(batch.views[0], batch.keys, 0.0, 0.0)
    inputs = as_input(patches, (6, 6)).view(8, 2, 2, 6, 6)
    if drop_colors:
        inputs = one_color(inputs, batch.keys)
    features = method.backbone(inputs.flatten(0, 1)).view(8, 2, -1)
    losses = []
    for image in range(8):
        shares = method.classifier(torch.cat([features[image, 0], features[image, 1]])).exp()
        losses.append(-torch.log(shares[place[image]] / shares.sum()))
    loss, expected = method(batch, "main")["loss"], sum(losses) / 8
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    weights = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_place_accuracy_counts_places_that_are_told():
    method = tiny(SPEC, gap=0.0, jitter=0.0, **SMALL)
    batch = tiny_batch(method)
    _, place = pairs(batch.views[0], batch.keys, 0.0, 0.0)
    with torch.no_grad():
        method.classifier[-1].weight.zero_()
        method.classifier[-1].bias.zero_()[place[0]] = 9.0
    assert method(batch, "main")["place_accuracy"] == (place == place[0]).float().mean()


@pytest.mark.parametrize(("gap", "side", "enough"), [(0.5, 7, 8), (0.0, 5, 6), (1.0, 9, 10)])
def test_images_too_small_are_refused_by_key(gap, side, enough):
    config = ContextPredictionConfig(name="context_prediction", gap=gap, jitter=0.0, patch_size=6, hidden_dim=2)
    with pytest.raises(RequestError, match=rf"pretrain\.method\.gap: images of {side} x 20 px"):
        SPEC.method(config, TinyConv(), (2, 20, side))
    SPEC.method(config, TinyConv(), (2, 20, enough))


def test_a_size_that_the_backbone_cannot_take_is_refused_by_key():
    config = ContextPredictionConfig(name="context_prediction", patch_size=2)
    with pytest.raises(RequestError, match=r"pretrain\.method\.patch_size: .*2 x 2 px"):
        SPEC.method(config, TinyConv(), (2, 20, 20))


@pytest.mark.parametrize(
    ("field", "value"), [("gap", -0.1), ("gap", 5.0), ("jitter", -0.1), ("patch_size", 1), ("hidden_dim", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        ContextPredictionConfig(name="context_prediction", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_patches_that_could_overlap_are_refused():
    with pytest.raises(ValidationError, match="jitter: patches would overlap"):
        ContextPredictionConfig(name="context_prediction", gap=0.1)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, gap=0.0, jitter=0.0, **SMALL)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
