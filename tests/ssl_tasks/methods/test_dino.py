"""DINO's loss against loops written from the paper; its two collapses; multi-crop; two processes against one."""

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
from torch.nn import functional

from ssl_tasks.backbones import build_backbone
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.dino import SPEC, DINOConfig, dino_loss

SMALL = {"num_local": 2, "out_dim": 7, "hidden_dim": 5, "bottleneck_dim": 4}


def naive_dino(student: Tensor, teacher: Tensor, center: Tensor, tau_s: float, tau_t: float) -> Tensor:
    """Algorithm 1 of arXiv 2104.14294 with the pairs of its multi-crop (equation 3), row by row."""
    losses = []
    for t in range(len(teacher)):
        for s in range(len(student)):
            if s == t:
                continue
            for b in range(student.shape[1]):
                target = torch.exp((teacher[t, b] - center) / tau_t)
                predicted = torch.exp(student[s, b] / tau_s)
                shares = zip(target / target.sum(), predicted / predicted.sum(), strict=True)
                losses.append(-sum(p * torch.log(q) for p, q in shares))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_views", [2, 5])
def test_the_loss_and_its_gradient_against_the_paper(num_views):
    teacher, center = rows(2, 3, 4, seed=1), rows(4, seed=2)
    assert_same_loss_and_gradients(
        lambda s: dino_loss(s, teacher, center, 0.3, 0.2)[0],
        lambda s: naive_dino(s, teacher, center, 0.3, 0.2),
        [rows(num_views, 3, 4, seed=0)],
    )


def test_the_loss_by_hand_and_no_gradient_to_the_teacher():
    student = torch.zeros(2, 1, 2).requires_grad_()
    teacher = (torch.tensor([[[math.log(3.0), 0.0]], [[0.0, 0.0]]])).requires_grad_()
    loss, entropy = dino_loss(student, teacher, torch.zeros(2), 1.0, 1.0)
    assert loss.item() == pytest.approx(math.log(2))  # a uniform prediction, whatever the target
    sure = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy.item() == pytest.approx((sure + math.log(2)) / 2)
    loss.backward()
    assert teacher.grad is None
    # (predicted - target) / 2 pairs: the second view learns from the first, which is sure of its first output
    torch.testing.assert_close(student.grad, torch.tensor([[[0.0, 0.0]], [[-0.125, 0.125]]]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_local", -1),
        ("out_dim", 1),
        ("student_temperature", 0.0),
        ("teacher_temperature", 0.0),
        ("momentum", 1.0),
        ("center_momentum", 1.1),
        ("freeze_last_layer", 1.0),
        ("teacher_warmup", 1.5),
    ],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        DINOConfig(name="dino", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_the_views_are_two_global_ones_and_as_many_local_ones_as_asked_for():
    assert SPEC.method.views_for(DINOConfig(name="dino")).policies == ("augment",) * 2 + ("local",) * 8
    assert SPEC.method.views_for(DINOConfig(name="dino", num_local=0)).policies == ("augment", "augment")


def test_the_teacher_sees_the_global_views_only_and_the_student_all():
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    batch.views[2:] = [view[:, :, :4, :4] for view in batch.views[2:]]
    seen: dict[str, list[tuple[int, ...]]] = {"teacher": [], "student": []}
    method.teacher.network[0].register_forward_pre_hook(lambda _, x: seen["teacher"].append(tuple(x[0].shape)))
    method.backbone.register_forward_pre_hook(lambda _, x: seen["student"].append(tuple(x[0].shape)))
    loss = method(batch, "main")["loss"]
    assert seen == {"teacher": [(16, 2, 6, 6)], "student": [(16, 2, 6, 6), (16, 2, 4, 4)]}
    with torch.no_grad():
        student = [
            method.head(method.backbone(torch.cat(part))).chunk(2) for part in (batch.views[:2], batch.views[2:])
        ]
        teacher = method.teacher.network(torch.cat(batch.views[:2])).chunk(2)
    expected = naive_dino(torch.stack([*student[0], *student[1]]), torch.stack(teacher), torch.zeros(7), 0.1, 0.04)
    torch.testing.assert_close(loss.detach(), expected)


def test_outputs_are_cosines_whatever_the_scale_of_the_last_layer():
    method = tiny(SPEC, **SMALL)
    features = rows(5, 6, seed=0)
    before = method.head(features)
    with torch.no_grad():
        method.head.last *= 3.0
    torch.testing.assert_close(method.head(features), before)
    directions = functional.normalize(method.head.layers(features), dim=1)
    torch.testing.assert_close(before, functional.cosine_similarity(directions[:, None], method.head.last, dim=2))


def test_the_last_layer_learns_nothing_at_first():
    method = tiny(SPEC, freeze_last_layer=0.25, **SMALL)
    for progress, learns in ((0.2, False), (0.25, True)):
        method.after_step(progress) if method.fresh else method.progress.fill_(progress)
        method.zero_grad()
        method(tiny_batch(method), "main")["loss"].backward()
        assert bool(method.head.last.grad.abs().sum() > 0) == learns
        assert float(method.head.layers[0].weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 0.04), (0.1, 0.05), (0.2, 0.06), (0.9, 0.06)])
def test_the_teachers_temperature_climbs_to_its_end(progress, temperature):
    method = tiny(SPEC, teacher_temperature=0.06, teacher_warmup=0.2, **SMALL)
    method.progress.fill_(progress)
    assert float(method._temperature()) == pytest.approx(temperature)
    assert float(tiny(SPEC, teacher_warmup=0.0, **SMALL)._temperature()) == pytest.approx(0.07)


def test_the_center_takes_in_the_teachers_mean_after_the_step():
    method = tiny(SPEC, center_momentum=0.75, **SMALL)
    batch = tiny_batch(method)
    outputs = method.teacher(torch.cat(batch.views[:2]))
    method.center.copy_(rows(7, seed=3))
    before = method.center.clone()
    method(batch, "main")
    assert torch.equal(method.center, before)
    method.after_step(0.5)
    torch.testing.assert_close(method.center, 0.75 * before + 0.25 * outputs.mean(dim=0))
    assert method.fresh == []


def test_a_vision_transformer_takes_local_views_of_another_size():
    backbone = build_backbone(
        "test_vit", modality="image", input_shape=(3, 32, 32), view_sides={"augment.policies.local.size": 16}
    )
    method = SPEC.method(DINOConfig(name="dino", **SMALL), backbone, (3, 32, 32))
    views = [rows(4, 3, side, side, seed=side).float() for side in (32, 32, 16, 16)]
    method(Batch(views, torch.arange(4), torch.arange(4)), "main")["loss"].backward()
    assert float(backbone.patch_embed.proj.weight.grad.abs().sum()) > 0


def after_training(**options: float) -> tuple[float, float]:
    """After 100 steps on noisy copies of pictures in four colours: the mean entropy of the teacher's distributions, and
    how much less than the entropy of their mean it is, which is what they tell of a picture."""
    torch.manual_seed(0)
    small = {"num_local": 0, "out_dim": 16, "hidden_dim": 16, "bottleneck_dim": 8, "freeze_last_layer": 0.0}
    small |= {"momentum": 0.9, "teacher_temperature": 0.04}
    method = SPEC.method(DINOConfig(name="dino", **{**small, **options}), TinyConv(), SHAPE)
    optimizer = torch.optim.AdamW(method.param_groups("main"), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    colours, numbers = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), torch.arange(32)
    x = colours.repeat(8, 1)[:, :, None, None] + 0.3 * torch.randn(32, *SHAPE, generator=generator)
    for step in range(100):
        views = [x + 0.3 * torch.randn(x.shape, generator=generator) for _ in range(2)]
        optimizer.zero_grad()
        method(Batch(views, numbers, numbers), "main")["loss"].backward()
        optimizer.step()
        method.after_step((step + 1) / 100)
    q = ((method.teacher(x) - method.center) / method._temperature()).softmax(dim=1)
    entropy, of_mean = (float(torch.special.entr(p).sum(dim=-1).mean()) for p in (q, q.mean(dim=0)))
    return entropy, of_mean - entropy


def test_centering_and_sharpening_each_keep_the_other_from_collapse():
    """Section 5.3 and figure 7: without a center the entropy goes to 0, without sharpening to that of chance."""
    chance = math.log(16)
    entropy, told = after_training()
    assert 0.02 * chance < entropy < 0.98 * chance
    assert told > 0.1
    entropy, told = after_training(center_momentum=1.0)
    assert entropy < 0.02 * chance
    assert told < 0.001
    entropy, told = after_training(teacher_temperature=0.5, teacher_temperature_start=0.5)
    assert entropy > 0.999 * chance
    assert told < 0.001


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, momentum=0.9, freeze_last_layer=0.0, **SMALL)


def test_two_ranks_compute_the_loss_gradients_and_center_of_one(run_ranks):
    alone = in_ranks()
    assert {"buffer center", "buffer progress"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
