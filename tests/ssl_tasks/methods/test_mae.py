"""MAE: the loss pixel by pixel, what the encoder may see, the decoder's places, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import (
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

from ssl_tasks.backbones.vit import sincos_positions
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.mae import SPEC, MAEConfig, masked_patch_loss

SMALL = {"decoder_depth": 1, "decoder_dim": 32}


def naive_loss(predicted: Tensor, images: Tensor, hidden: Tensor, normalize: bool) -> Tensor:
    """Section 3 of arXiv 2111.06377 for 2 x 3 patches of 2 x 2 pixels, patch by patch."""
    errors = []
    for row in range(len(images)):
        for patch in range(6):
            if not hidden[row, patch]:
                continue
            y, x = 2 * (patch // 3), 2 * (patch % 3)
            pixels = torch.stack([images[row, c, y + i, x + j] for c in range(2) for i in range(2) for j in range(2)])
            if normalize:
                mean = sum(pixels) / 8
                deviation = torch.sqrt(sum((p - mean) ** 2 for p in pixels) / 7 + 1e-6)
                pixels = (pixels - mean) / deviation
            errors.append(sum((a - b) ** 2 for a, b in zip(predicted[row, patch], pixels, strict=True)) / 8)
    return sum(errors) / len(errors)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_and_its_gradient_against_the_paper(normalize):
    hidden = torch.tensor([[1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    inputs = [rows(3, 6, 8, seed=0), rows(3, 2, 4, 6, seed=1)]
    assert_same_loss_and_gradients(
        lambda *z: masked_patch_loss(*z, hidden, (2, 3), normalize),
        lambda *z: naive_loss(*z, hidden, normalize),
        inputs,
    )


def test_the_encoder_sees_a_quarter_of_the_patches_and_nothing_of_the_rest():
    method = tiny(SPEC, normalize_patches=False, **SMALL)
    seen, drawn = [], []
    method.vit.blocks[0].register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    method.to_pixels.register_forward_hook(lambda _, __, y: drawn.append(y.detach()))
    batch = tiny_batch(method)
    first = method(batch, "main")["loss"]
    assert seen[0].shape == (8, 1 + 4, 32)  # class token, 4 of 16 patches
    # change the image patch by patch: where the prediction stays, the patch was hidden
    hidden = []
    for patch in range(16):
        changed = tiny_batch(method)
        y, x = 2 * (patch // 4), 2 * (patch % 4)
        changed.views[0][:, :, y : y + 2, x : x + 2] += 1.0
        assert not torch.equal(method(changed, "main")["loss"], first)
        hidden.append((drawn[-1] == drawn[0]).flatten(1).all(dim=1))
    assert torch.stack(hidden).sum(dim=0).tolist() == [12] * 8


def test_the_decoder_puts_tokens_in_their_places():
    method = tiny(SPEC, **SMALL)
    whole = []
    method.decoder[0].register_forward_pre_hook(lambda _, x: whole.append(x[0].detach()))
    seen = rows(1, 3, 32, seed=3)
    method._decode(seen, torch.tensor([[2, 9]]), (4, 4))
    tokens = whole[0][0, 1:]
    expected = method.to_decoder(seen)[0, 1:].detach()
    mask = method.mask_token.detach()
    table = sincos_positions(4, 4, 32).double()
    for place in range(16):
        content = expected[[2, 9].index(place)] if place in (2, 9) else mask
        torch.testing.assert_close(tokens[place], content + table[place])


@pytest.mark.parametrize(
    ("field", "value"), [("mask_ratio", 0.0), ("mask_ratio", 1.0), ("decoder_dim", 16), ("decoder_depth", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        MAEConfig(name="mae", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_what_does_not_fit_the_backbone_is_refused_by_key():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: mae works on the patches of a ViT, and TinyConv has"):
        SPEC.method(MAEConfig(name="mae"), TinyConv(), (2, 6, 6))
    with pytest.raises(RequestError, match=r"pretrain\.method\.decoder_dim: 48 is no multiple of 32"):
        SPEC.method(MAEConfig(name="mae", decoder_dim=48), tiny_vit(), (2, 8, 8))


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, **SMALL)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
