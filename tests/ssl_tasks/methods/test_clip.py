"""CLIP's loss against loops written from the paper; its temperature, its two encoders, two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import (
    SHAPE,
    TEXT_SHAPE,
    TinyConv,
    assert_ranks_agree,
    assert_same_loss_and_gradients,
    one_step,
    rows,
    some_text,
    tiny,
    tiny_batch,
)
from torch import Tensor

from ssl_tasks.methods.clip import SPEC, CLIPConfig, clip_loss
from ssl_tasks.methods.pairs import text_recall

SMALL = {"out_dim": 5, "text_width": 8, "text_depth": 2, "text_heads": 2}


def naive_clip(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Figure 3 of arXiv 2103.00020, pair by pair."""
    n = len(images)

    def logit(i: int, j: int) -> Tensor:
        return (images[i] * texts[j]).sum() / (images[i].norm() * texts[j].norm()) * torch.exp(log_scale)

    def picked(own: Tensor, all_: list[Tensor]) -> Tensor:
        return -torch.log(torch.exp(own) / sum(torch.exp(one) for one in all_))

    loss_i = sum(picked(logit(i, i), [logit(i, j) for j in range(n)]) for i in range(n)) / n
    loss_t = sum(picked(logit(j, j), [logit(i, j) for i in range(n)]) for j in range(n)) / n
    return (loss_i + loss_t) / 2


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_loss_and_its_gradient_against_the_paper(scale):
    inputs = [rows(5, 3, seed=0), rows(5, 3, seed=1), torch.tensor(math.log(scale), dtype=torch.float64)]
    assert_same_loss_and_gradients(clip_loss, naive_clip, inputs)


def test_loss_of_embeddings_that_say_nothing_is_log_n():
    same = torch.ones(6, 4, dtype=torch.float64)
    assert clip_loss(same, same, torch.tensor(3.0).double()).item() == pytest.approx(math.log(6))


def step_in_rank() -> dict[str, Tensor]:
    return one_step(SPEC, **SMALL)


def test_two_ranks_learn_as_one_does(run_ranks):
    assert_ranks_agree(step_in_rank(), run_ranks(step_in_rank))


def test_the_scale_starts_at_the_papers_and_stays_below_100():
    method = tiny(SPEC, **SMALL)
    assert method(tiny_batch(method), "main")["logit_scale"].item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        method.log_scale.fill_(7.0)
    method.after_step(0.1)
    assert method.log_scale.exp().item() == pytest.approx(100.0)
    loss = method(tiny_batch(method), "main")["loss"]
    loss.backward()
    assert method.log_scale.grad.abs().item() > 0  # it can come down again


def test_no_weight_decay_on_the_temperature():
    method = tiny(SPEC, **SMALL)
    decayed = [id(p) for group in method.param_groups("main") if "weight_decay" not in group for p in group["params"]]
    assert id(method.log_scale) not in decayed
    assert id(method.text_encoder.tokens.weight) in decayed


def test_the_text_is_used_up_to_its_end_and_no_further():
    method, batch = tiny(SPEC, **SMALL), None
    batch = tiny_batch(method)
    before = method(batch, "main")["loss"]
    padded = batch.text.clone()
    padded[batch.text == 0] = 9
    for row, kept in zip(padded, batch.text, strict=True):
        row[: int((kept == 2).int().argmax()) + 1] = kept[: int((kept == 2).int().argmax()) + 1]
    assert not torch.equal(padded, batch.text)
    batch.text = padded
    torch.testing.assert_close(method(batch, "main")["loss"], before)
    padded[0, 1] = 3 + (padded[0, 1] - 2) % 17
    assert abs(method(batch, "main")["loss"].item() - before.item()) > 1e-6


def test_recall_counts_equal_captions_as_right():
    tokens = some_text(4)
    texts = torch.eye(4)
    assert text_recall(texts, texts, tokens).item() == 1.0
    assert text_recall(texts[[1, 0, 2, 3]], texts, tokens).item() == 0.5
    tokens[1] = tokens[0]
    assert text_recall(texts[[1, 0, 2, 3]], texts, tokens).item() == 1.0


def test_blocks_start_out_different_and_without_dropout():
    encoder = tiny(SPEC, **SMALL).train().text_encoder
    first, second = encoder.blocks
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    tokens = some_text(3)
    assert torch.equal(encoder(tokens), encoder(tokens))
    assert encoder(tokens).shape == (3, 8)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 0.001}, "temperature"),
        ({"text_width": 10, "text_heads": 4}, "text_heads"),
        ({"text_depth": 0}, "text_depth"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, key):
    with pytest.raises(ValidationError, match=key):
        CLIPConfig(name="clip", **options)


def test_a_backbone_of_any_width_fits():
    method = SPEC.method(CLIPConfig(name="clip", **SMALL), TinyConv(), SHAPE, text=TEXT_SHAPE)
    images, texts = method.embed(tiny_batch(method.double()))
    assert images.shape == texts.shape == (8, 5)
