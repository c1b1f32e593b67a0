"""SimMIM: the loss pixel by pixel, squares of patches, mask tokens in their places, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch, tiny_vit
from torch import Tensor

from ssl_tasks.backbones.vit import embed
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.simmim import SPEC, SimMIMConfig, masked_l1
from ssl_tasks.randomness import row_keys


def naive_l1(predicted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Equation 2 of arXiv 2111.09886 for 2 x 3 patches of 2 x 2 pixels."""
    losses = []
    for row in range(len(images)):
        errors = []
        for patch in range(6):
            y, x = 2 * (patch // 3), 2 * (patch % 3)
            for place, (c, i, j) in enumerate((c, i, j) for c in range(2) for i in range(2) for j in range(2)):
                if hidden[row, patch]:
                    errors.append((predicted[row, patch, place] - images[row, c, y + i, x + j]).abs())
        losses.append(sum(errors) / len(errors))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_against_the_paper():
    hidden = torch.tensor([[1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]], dtype=torch.bool)
    inputs = [rows(3, 6, 8, seed=0), rows(3, 2, 4, 6, seed=1)]
    assert_same_loss_and_gradients(lambda *z: masked_l1(*z, hidden, (2, 3)), lambda *z: naive_l1(*z, hidden), inputs)


def test_masks_are_whole_squares_and_as_many_as_the_ratio_says():
    method = tiny(SPEC, mask_ratio=0.5)
    masks = method._masks(row_keys(0, 0, torch.arange(200)), (4, 4)).view(200, 2, 2, 2, 2)
    squares = masks.permute(0, 1, 3, 2, 4).reshape(200, 4, 4)  # one line for each square
    assert torch.equal(squares.any(dim=2), squares.all(dim=2))
    assert squares.all(dim=2).sum(dim=1).tolist() == [2] * 200
    assert 70 < squares[:, 0, 0].sum() < 130
    cut = method._masks(row_keys(0, 0, torch.arange(9)), (3, 3))  # four squares, three of them cut
    assert cut.shape == (9, 9)


def test_hidden_patches_reach_the_blocks_as_the_mask_token_with_their_places():
    method = tiny(SPEC)
    images = tiny_batch(method).views[0]
    hidden = torch.zeros(8, 16, dtype=torch.bool)
    hidden[:, 5] = True
    plain, masked = embed(method.vit, images), embed(method.vit, images, hidden, method.mask_token)
    place = method.vit.pos_embed[0, 1 + 5]
    torch.testing.assert_close(masked[:, 1 + 5], (method.mask_token + place).expand(8, -1))
    others = [number for number in range(17) if number != 1 + 5]
    assert torch.equal(plain[:, others], masked[:, others])


@pytest.mark.parametrize(("field", "value"), [("mask_ratio", 0.0), ("mask_ratio", 1.0), ("mask_patches", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        SimMIMConfig(name="simmim", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_squares_as_large_as_the_image_are_refused():
    with pytest.raises(RequestError, match=r"pretrain\.method\.mask_patches: the images have 4 x 4 patches, which"):
        SPEC.method(SimMIMConfig(name="simmim", mask_patches=4), tiny_vit(), (2, 8, 8))


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
