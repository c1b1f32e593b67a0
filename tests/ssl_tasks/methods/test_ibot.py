"""iBOT's loss of patches against loops written from the paper; who sees what; its masks; two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import (
    NUM_ROWS,
    VIT_SHAPE,
    TinyConv,
    assert_ranks_agree,
    assert_same_loss_and_gradients,
    one_step,
    rows,
    tiny,
    tiny_batch,
    tiny_vit,
)
from torch import Tensor

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.dino import dino_loss
from ssl_tasks.methods.ibot import SPEC, IBOTConfig, draw_masks, patch_loss
from ssl_tasks.methods.patches import block_masks
from ssl_tasks.randomness import row_keys

SMALL = {"num_local": 2, "out_dim": 7, "hidden_dim": 5, "bottleneck_dim": 4}
HIDDEN = torch.tensor([[True, False, True, True], [False, False, False, False], [False, True, False, False]])


def naive_patch_loss(
    student: Tensor, teacher: Tensor, hidden: Tensor, center: Tensor, tau_s: float, tau_t: float
) -> Tensor:
    """Equation 2 of arXiv 2111.07832, patch by patch, of outputs (V, N, K) of all patches of V views."""
    views = []
    for v in range(len(hidden)):
        terms = []
        for i in range(hidden.shape[1]):
            if hidden[v, i]:
                target = torch.exp((teacher[v, i] - center) / tau_t)
                predicted = torch.exp(student[v, i] / tau_s)
                shares = zip(target / target.sum(), predicted / predicted.sum(), strict=True)
                terms.append(-sum(p * torch.log(q) for p, q in shares))
        views.append(sum(terms) / len(terms) if terms else torch.zeros((), dtype=student.dtype))
    return sum(views) / len(views)


def test_the_loss_of_patches_and_its_gradient_against_the_paper():
    teacher, center = rows(3, 4, 5, seed=1), rows(5, seed=2)
    assert_same_loss_and_gradients(
        lambda s: patch_loss(s[HIDDEN], teacher[HIDDEN], HIDDEN, center, 0.3, 0.2),
        lambda s: naive_patch_loss(s, teacher, HIDDEN, center, 0.3, 0.2),
        [rows(3, 4, 5, seed=0)],
    )


def test_the_loss_of_patches_by_hand_and_no_gradient_to_the_teacher():
    student = torch.zeros(4, 2).requires_grad_()
    teacher = torch.tensor([[math.log(3.0), 0.0]] * 4).requires_grad_()
    loss = patch_loss(student, teacher, HIDDEN, torch.zeros(2), 1.0, 1.0)
    assert loss.item() == pytest.approx(2 / 3 * math.log(2))  # uniform predictions; one of three views hides nothing
    loss.backward()
    assert teacher.grad is None
    # (predicted - target) / 3 views, and in the first of them / 3 patches
    expected = torch.tensor([[-0.25, 0.25]]) * torch.tensor([1 / 9, 1 / 9, 1 / 9, 1 / 3])[:, None]
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_local", -1),
        ("mask_probability", 0.0),
        ("mask_probability", 1.1),
        ("mask_ratio", (0.5, 0.1)),
        ("mask_ratio", (0.0, 0.1)),
        ("mask_ratio", (0.1, 1.0)),
        ("cls_weight", -1.0),
        ("patch_weight", -0.1),
        ("out_dim", 1),
        ("student_temperature", 0.0),
        ("teacher_temperature", 0.0),
        ("teacher_patch_temperature", -1.0),
        ("momentum", 1.0),
        ("center_momentum", 1.1),
        ("freeze_last_layer", 1.0),
        ("teacher_warmup", 1.5),
    ],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        IBOTConfig(name="ibot", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_networks_without_patches_and_images_of_one_patch_are_refused():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: ibot works on the patches of a ViT, and TinyConv"):
        SPEC.method(IBOTConfig(name="ibot"), TinyConv(), (2, 6, 6))
    one = build_backbone("test_vit", modality="image", input_shape=(3, 16, 16), stem="standard")
    with pytest.raises(RequestError, match=r"pretrain\.backbone: ibot hides patches of an image, and these .* one"):
        SPEC.method(IBOTConfig(name="ibot", **SMALL), one, (3, 16, 16))


@pytest.mark.parametrize("grid", [(14, 14), (4, 6), (2, 2)])
def test_masks_are_as_large_as_asked_for_as_often_as_asked_for(grid):
    keys, count = row_keys(0, 0, torch.arange(2000)), math.prod(grid)
    size = draw_masks(keys, "a", grid, 0.4, (0.2, 0.6)).sum(dim=1)
    assert float((size > 0).float().mean()) == pytest.approx(0.4, abs=0.04)
    shares = size[size > 0] / count
    assert float(shares.max()) <= max(0.6, round(0.6 * count) / count) + 1e-6
    assert float(shares.mean()) == pytest.approx(0.4, abs=0.5 / count + 0.02)
    every = draw_masks(keys, "a", grid, 1.0, (0.2, 0.2)).sum(dim=1)
    asked = max(1, round(0.2 * count))
    assert int(every.max()) == asked
    assert float(every.float().mean()) > 0.95 * asked


def test_a_rows_mask_depends_on_its_key_alone():
    keys = row_keys(0, 0, torch.arange(50))
    together = draw_masks(keys, "a", (8, 8), 0.7, (0.1, 0.5))
    for row in (0, 17, 49):
        assert torch.equal(draw_masks(keys[row : row + 1], "a", (8, 8), 0.7, (0.1, 0.5))[0], together[row])
    assert not torch.equal(draw_masks(keys, "b", (8, 8), 0.7, (0.1, 0.5)), together)


def test_masks_are_made_of_blocks():
    """Hidden patches touch hidden ones far more often than where as many are drawn one by one (0.3 of neighbours)."""
    mask = block_masks(row_keys(0, 0, torch.arange(300)), "a", torch.full((300,), 59.0), (14, 14)).view(-1, 14, 14)
    beside = mask[:, :, :-1] & mask[:, :, 1:]
    assert float(beside.sum() / mask[:, :, :-1].sum()) > 0.7


def everything(method, images: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) and (B, N, K) outputs of the teacher, which are those of the student before the first step."""
    tokens = method.vit.forward_features(images)
    return method.head(tokens[:, 0]), (method.patch_head or method.head)(tokens[:, 1:])


@pytest.mark.parametrize("shared", [True, False])
def test_the_student_sees_masks_and_local_views_and_the_teacher_the_global_views_as_they_are(shared):
    method = tiny(SPEC, shared_head=shared, cls_weight=0.5, patch_weight=2.0, teacher_patch_temperature=0.2, **SMALL)
    batch = tiny_batch(method)
    method.centers.copy_(rows(2, 7, seed=3))
    method.progress.fill_(0.5)
    with torch.no_grad():
        method.mask_token += 1.0
        hidden = method._masks(batch.keys, (4, 4))
        images = torch.cat(batch.views[:2])
        teacher, teacher_patches = everything(method, images)
        masked = method.vit.patch_embed(images)
        masked[hidden] = method.mask_token
        tokens = method.vit.norm(method.vit.blocks(method.vit._pos_embed(masked)))
        student = torch.cat([method.head(tokens[:, 0]), method.head(method.vit(torch.cat(batch.views[2:])))])
        patches = (method.patch_head or method.head)(tokens[:, 1:])
    output = method(batch, "main")
    teacher, student = teacher.view(2, NUM_ROWS, 7), student.view(4, NUM_ROWS, 7)
    of_views = dino_loss(student, teacher, method.centers[0], 0.1, 0.07)[0]
    of_patches = naive_patch_loss(patches, teacher_patches, hidden, method.centers[1], 0.1, 0.2)
    torch.testing.assert_close(output["cls_loss"], of_views)
    torch.testing.assert_close(output["patch_loss"], of_patches)
    torch.testing.assert_close(output["loss"].detach(), 0.5 * of_views + 2.0 * of_patches)


def test_both_global_views_have_masks_of_their_own():
    method = tiny(SPEC, mask_probability=1.0, **SMALL)
    first, second = method._masks(row_keys(0, 0, torch.arange(64)), (4, 4)).chunk(2)
    assert first.shape == (64, 16)
    assert not torch.equal(first, second)


def test_the_centers_take_in_the_teachers_means_of_images_and_of_all_patches_after_the_step():
    method = tiny(SPEC, center_momentum=0.75, **SMALL)
    batch = tiny_batch(method)
    teacher, patches = everything(method, torch.cat(batch.views[:2]))
    method.centers.copy_(rows(2, 7, seed=3))
    before = method.centers.clone()
    method(batch, "main")
    assert torch.equal(method.centers, before)
    method.after_step(0.5)
    means = torch.stack([teacher.mean(dim=0), patches.mean(dim=(0, 1))])
    torch.testing.assert_close(method.centers, 0.75 * before + 0.25 * means)
    assert method.fresh == []


def test_the_teacher_follows_backbone_and_heads():
    method = tiny(SPEC, shared_head=False, momentum=0.9, **SMALL)
    before = {name: p.clone() for name, p in method.teacher.network.named_parameters()}
    student = dict(method._tokenizer().named_parameters())
    assert before.keys() == student.keys()
    with torch.no_grad():
        for parameter in student.values():
            parameter += 1.0
    method.fresh = [rows(2, 7, seed=0)]
    method.after_step(0.5)
    for name, parameter in method.teacher.network.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.05)  # a share of 1 - 0.9 at the start, half of it here


@pytest.mark.parametrize("shared", [True, False])
def test_the_last_layers_learn_nothing_at_first(shared):
    method = tiny(SPEC, freeze_last_layer=0.25, shared_head=shared, **SMALL)
    heads = [method.head] if shared else [method.head, method.patch_head]
    for progress, learns in ((0.2, False), (0.25, True)):
        method.progress.fill_(progress)
        method.zero_grad()
        method(tiny_batch(method), "main")["loss"].backward()
        for head in heads:
            assert bool(head.last.grad.abs().sum() > 0) == learns
            assert float(head.layers[0].weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.1, 0.05), (0.2, 0.06), (0.9, 0.06)])
def test_the_teachers_temperatures_climb_to_their_ends(progress, temperature):
    method = tiny(SPEC, teacher_warmup=0.2, **SMALL)
    method.progress.fill_(progress)
    assert float(method._temperature(0.06)) == pytest.approx(temperature)
    assert float(tiny(SPEC, teacher_warmup=0.0, **SMALL)._temperature(0.06)) == pytest.approx(0.06)


def test_a_batch_in_which_nothing_is_hidden_reaches_every_parameter_and_has_no_loss_of_patches():
    method = tiny(SPEC, shared_head=False, mask_probability=1e-9, **SMALL)
    output = method(tiny_batch(method), "main")
    assert float(output["patch_loss"]) == 0.0
    output["loss"].backward()
    assert [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None] == []
    assert float(method.patch_head.last.grad.abs().sum()) == 0.0


@pytest.mark.parametrize("pool", ["network", "average"])
def test_what_is_distilled_is_what_transfers(pool):
    """The class token, and where a backbone pools its patches, their mean."""
    assert SPEC.method.pool == "network"
    backbone = build_backbone("test_vit", modality="image", input_shape=(3, 16, 16), pool=pool)
    method = SPEC.method(IBOTConfig(name="ibot", **SMALL), backbone, (3, 16, 16)).eval()
    images = rows(4, 3, 16, 16, seed=0).float()
    nothing = torch.zeros(4, math.prod(backbone.patch_embed.grid_size), dtype=torch.bool)
    outputs, patches, _ = method.teacher(images, nothing)
    torch.testing.assert_close(outputs, method.head(backbone(images)))
    assert patches.shape == (0, 7)


def test_a_vision_transformer_takes_local_views_of_another_size():
    backbone = build_backbone(
        "test_vit", modality="image", input_shape=(3, 32, 32), view_sides={"augment.policies.local.size": 16}
    )
    method = SPEC.method(IBOTConfig(name="ibot", mask_probability=1.0, **SMALL), backbone, (3, 32, 32))
    views = [rows(4, 3, side, side, seed=side).float() for side in (32, 32, 16, 16)]
    output = method(Batch(views, torch.arange(4), torch.arange(4)), "main")
    output["loss"].backward()
    assert float(output["patch_loss"]) > 0
    assert float(method.mask_token.grad.abs().sum()) > 0


def test_it_learns_what_hidden_patches_look_like():
    """Steps on pictures of one colour each, with the loss of patches alone: the student comes to say of hidden patches
    what the teacher says, for less than a prediction that knows no picture costs."""
    torch.manual_seed(0)
    small = {"num_local": 0, "out_dim": 16, "hidden_dim": 16, "bottleneck_dim": 8, "freeze_last_layer": 0.0}
    options = {**small, "cls_weight": 0.0, "mask_probability": 1.0, "momentum": 0.9, "teacher_patch_temperature": 0.04}
    method = SPEC.method(IBOTConfig(name="ibot", **options), tiny_vit(), VIT_SHAPE)
    optimizer = torch.optim.AdamW(method.param_groups("main"), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    colours = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(8, 1)[:, :, None, None]
    numbers = torch.arange(32)
    for step in range(150):
        views = [colours + 0.3 * torch.randn(32, *VIT_SHAPE, generator=generator) for _ in range(2)]
        optimizer.zero_grad()
        output = method(Batch(views, numbers, row_keys(0, step, numbers)), "main")
        output["loss"].backward()
        optimizer.step()
        method.after_step((step + 1) / 150)
    _, patches, _ = method.teacher(views[0], torch.ones(32, 16, dtype=torch.bool))
    q = ((patches - method.centers[1]) / 0.04).softmax(dim=1)
    of_mean = float(torch.special.entr(q.mean(dim=0)).sum())
    assert of_mean > 0.5 * math.log(16)  # no collapse
    assert float(output["patch_loss"]) < 0.8 * of_mean


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, momentum=0.9, freeze_last_layer=0.0, mask_probability=0.9, **SMALL)


def test_two_ranks_compute_the_loss_gradients_and_centers_of_one(run_ranks):
    alone = in_ranks()
    assert {"buffer centers", "buffer progress"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
