"""I-JEPA: blocks, the loss against loops, padding that changes nothing, what is seen, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.ijepa import SPEC, IJEPAConfig, draw_blocks, prediction_loss
from ssl_tasks.randomness import row_keys

SMALL = {"predictor_depth": 1, "num_targets": 2, "momentum": 0.9}


def naive_loss(predicted: Tensor, target: Tensor, there: Tensor) -> Tensor:
    losses = []
    for block in range(len(predicted)):
        errors = []
        for patch in range(predicted.shape[1]):
            if there[block, patch]:
                wanted = target[block, patch].detach()
                wanted = (wanted - wanted.mean()) / torch.sqrt(wanted.var(correction=0) + 1e-5)
                for a, b in zip(predicted[block, patch], wanted, strict=True):
                    far = (a - b).abs()
                    errors.append(0.5 * far**2 if far < 1 else far - 0.5)
        losses.append(sum(errors) / len(errors))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_against_loops():
    there = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    target = rows(3, 3, 5, seed=1)
    assert_same_loss_and_gradients(
        lambda z: prediction_loss(z, target, there), lambda z: naive_loss(z, target, there), [3 * rows(3, 3, 5, seed=0)]
    )


@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (14, 14), (4, 9)])
def test_targets_are_blocks_of_the_papers_size_and_the_context_overlaps_none(grid):
    context, targets = draw_blocks(row_keys(0, 0, torch.arange(300)), grid, 4)
    count = grid[0] * grid[1]
    assert context.shape == (300, count)
    assert targets.shape == (300, 4, count)
    assert not (context & targets.any(dim=1)).any()
    assert (context.sum(dim=1) >= 1).all()
    for block in targets.flatten(0, 1).view(-1, *grid)[:50]:
        lines, columns = block.any(dim=1), block.any(dim=0)
        assert torch.equal(block, lines[:, None] & columns[None, :])  # a rectangle
        assert (lines.int().diff() != 0).sum() <= 2  # in one piece
    share = targets.float().mean().item()
    assert 0.15 * 0.85 < share < 0.2 * 1.25  # whole patches
    if grid == (14, 14):
        assert 0.2 < context.float().mean() < 0.6


def test_a_row_is_the_same_whatever_rows_pad_it():
    method = tiny(SPEC, **SMALL).eval()
    batch = tiny_batch(method)
    batch.keys = row_keys(0, 1, torch.arange(8))
    alone = [
        method(Batch([batch.views[0][i : i + 1]], batch.positions[i : i + 1], batch.keys[i : i + 1]), "main")["loss"]
        for i in range(8)
    ]
    context, targets = draw_blocks(batch.keys, (4, 4), 2)
    assert len(set(context.sum(dim=1).tolist())) > 1  # there is padding
    assert len(set(targets.sum(dim=2).flatten().tolist())) > 1
    torch.testing.assert_close(method(batch, "main")["loss"], torch.stack(alone).mean(), rtol=1e-10, atol=1e-12)


def test_the_prediction_sees_the_context_alone():
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    predictions = []
    method.from_predictor.register_forward_hook(lambda _, __, y: predictions.append(y.detach()))
    method(batch, "main")
    context, _ = draw_blocks(batch.keys, (4, 4), 2)
    pixels = context.view(8, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    batch.views[0] = torch.where(pixels, batch.views[0], batch.views[0] + 1.0)
    method(batch, "main")
    assert torch.equal(predictions[0], predictions[1])
    batch.views[0] = torch.where(pixels, batch.views[0] + 1.0, batch.views[0])
    method(batch, "main")
    assert not torch.equal(predictions[0], predictions[2])


@pytest.mark.parametrize(
    ("field", "value"), [("num_targets", 0), ("momentum", 1.0), ("predictor_dim", 8), ("predictor_depth", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        IJEPAConfig(name="ijepa", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_too_few_patches_are_refused():
    vit = VisionTransformer(img_size=6, patch_size=2, in_chans=2, num_classes=0, embed_dim=32, depth=1, num_heads=2)
    with pytest.raises(RequestError, match=r"pretrain\.backbone: ijepa hides blocks of patches, and 3 x 3 of them are"):
        SPEC.method(IJEPAConfig(name="ijepa"), vit, (2, 6, 6))


def test_the_teacher_follows_and_takes_no_gradient():
    method = tiny(SPEC, **SMALL)
    method(tiny_batch(method), "main")["loss"].backward()
    kept, students = list(method.teacher.parameters()), list(method.vit.parameters())
    assert all(parameter.grad is None for parameter in kept)
    before = [parameter.clone() for parameter in kept]
    with torch.no_grad():
        for student in students:
            student += 1.0
    method.after_step(0.5)  # halfway from 0.9 to 1
    for parameter, old, student in zip(kept, before, students, strict=True):
        torch.testing.assert_close(parameter, 0.95 * old + 0.05 * student)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, **SMALL)


def test_two_ranks_compute_the_loss_gradients_and_teacher_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
