"""CPC against loops written from the paper; what a context sees; small images; two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import (
    SHAPE,
    TinyConv,
    assert_ranks_agree,
    assert_same_loss_and_gradients,
    one_step,
    rows,
    tiny,
    tiny_batch,
)
from torch import Tensor

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.cpc import SPEC, CPCConfig, patch_info_nce, patches
from ssl_tasks.randomness import uniform

SMALL = {"context_dim": 5, "context_layers": 2, "embedding_dim": 3, "num_negatives": 2}


def naive_info_nce(predicted: Tensor, own: Tensor, numbers: Tensor, pool: Tensor, pool_numbers: Tensor) -> Tensor:
    """Equation 4 of arXiv 1807.03748 with f = exp(z c), patch by patch."""
    losses = []
    for p, z, number in zip(predicted, own, numbers.tolist(), strict=True):
        scores = [torch.exp(sum(p * z))]
        for other, its_number in zip(pool, pool_numbers.tolist(), strict=True):
            if its_number != number:
                scores.append(torch.exp(sum(p * other)))
        losses.append(-torch.log(scores[0] / sum(scores)))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_against_the_paper():
    numbers, pool_numbers = torch.tensor([4, 0, 7]), torch.tensor([1, 7, 2, 4])
    assert_same_loss_and_gradients(
        lambda p, z, n: patch_info_nce(p, z, numbers, n, pool_numbers),
        lambda p, z, n: naive_info_nce(p, z, numbers, n, pool_numbers),
        [rows(3, 5, seed=0), rows(3, 5, seed=1), rows(4, 5, seed=2)],
    )


def test_a_patch_is_no_negative_of_itself():
    z = torch.zeros(1, 2)
    loss = patch_info_nce(z, z, torch.tensor([3]), torch.zeros(3, 2), torch.tensor([3, 4, 5]))
    assert loss.item() == pytest.approx(math.log(3))  # itself and two others


def test_patches_overlap_by_half_and_stand_in_rows():
    image = torch.arange(36.0).view(1, 1, 6, 6)
    cut = patches(image, 4)
    assert cut.shape == (1, 2, 2, 1, 4, 4)
    assert torch.equal(cut[0, 1, 0, 0], image[0, 0, 2:6, 0:4])
    assert torch.equal(cut[0, 0, 1, 0], image[0, 0, 0:4, 2:6])
    assert patches(torch.zeros(2, 3, 32, 32), 8).shape == (2, 7, 7, 3, 8, 8)  # the paper's grid


def test_the_forward_predicts_each_row_from_those_above_it():
    """Patch by patch, with the context of the row that is `distance` higher and all negatives in a list."""
    torch.manual_seed(0)
    config = CPCConfig(name="cpc", max_ahead=3, **SMALL)
    method = SPEC.method(config, TinyConv(), (2, 10, 12)).double()
    assert list(method.distances) == [2, 3]
    keys = torch.arange(3)
    view = rows(3, 2, 10, 12, seed=1)
    cut = patches(view, 4)
    features = method.backbone(cut.flatten(0, 2)).view(3, 4, 5, 6)
    context = method.context(method.to_context(features.permute(0, 3, 1, 2)))
    z = method.embed(features)
    order = uniform(keys, "cpc.negatives", 20, torch.float64).argsort(dim=1)
    chosen = [(b, int(place) // 5, int(place) % 5) for b in range(3) for place in order[b, :2]]
    total = []
    for number, distance in enumerate((2, 3)):
        weight, bias = method.predictors[number].weight[:, :, 0, 0], method.predictors[number].bias
        losses = []
        for b in range(3):
            for row in range(4 - distance):
                for column in range(5):
                    predicted = 0.1 * (weight @ context[b, :, row, column] + bias)
                    at = (b, row + distance, column)
                    scores = [predicted @ z[at], *(predicted @ z[other] for other in chosen if other != at)]
                    losses.append(-torch.log_softmax(torch.stack(scores), dim=0)[0])
        total.append(sum(losses) / len(losses))
    loss = method(Batch([view], keys, keys), "main")["loss"]
    expected = sum(total) / 2
    torch.testing.assert_close(loss, expected)
    weights = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_context_sees_its_own_row_and_those_above_and_nothing_below():
    method = tiny(SPEC, **SMALL)
    x = rows(1, 5, 6, 6, seed=0).requires_grad_()
    method.context(x)[0, :, 3, 2].sum().backward()
    seen = x.grad[0].abs().sum(dim=0) > 0
    assert not seen[4:].any()
    assert seen[3, 2]
    assert seen[1, 0]
    assert seen[1, 4]
    assert not seen[0].any()  # two blocks reach two rows up


@pytest.mark.parametrize(
    ("shape", "side", "distances"),
    [((2, 6, 6), 4, [1]), ((2, 8, 8), 4, [2]), ((2, 28, 28), 7, [2, 3, 4, 5]), ((2, 32, 32), 8, [2, 3, 4, 5])],
)
def test_small_images_have_patches_too(shape, side, distances):
    method = SPEC.method(CPCConfig(name="cpc", **SMALL), TinyConv(), shape)
    assert method.side == side
    assert list(method.distances) == distances
    batch = Batch([rows(2, *shape, seed=0).float()], torch.arange(2), torch.arange(2))
    assert torch.isfinite(method(batch, "main")["loss"])


@pytest.mark.parametrize(
    ("field", "value"),
    [("patch_size", 1), ("max_ahead", 0), ("context_dim", 0), ("context_layers", 0), ("num_negatives", 0)],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        CPCConfig(name="cpc", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


@pytest.mark.parametrize(("shape", "side"), [((2, 6, 6), 5), ((2, 6, 6), 7), ((2, 12, 4), 6), ((2, 4, 12), 4)])
def test_patches_that_leave_no_two_rows_are_refused_by_key(shape, side):
    with pytest.raises(RequestError, match=rf"^pretrain\.method\.patch_size: {side} px leave no two rows"):
        SPEC.method(CPCConfig(name="cpc", patch_size=side), TinyConv(), shape)


def test_a_backbone_of_fixed_size_is_refused_by_key():
    backbone = build_backbone("test_vit", modality="image", input_shape=(3, 32, 32), stem="standard")
    with pytest.raises(RequestError, match=r"^pretrain\.method\.patch_size: the backbone takes no patches of 8 x 8"):
        SPEC.method(CPCConfig(name="cpc"), backbone, (3, 32, 32))


def test_negatives_are_drawn_anew_for_other_keys():
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    before = method(batch, "main")["loss"]
    batch.keys = batch.keys + 100
    assert not torch.equal(method(batch, "main")["loss"], before)
    assert SHAPE[1:] == (6, 6)  # 2 x 2 patches, two of which are drawn


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, **SMALL)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
