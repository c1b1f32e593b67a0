"""ViTs from the inside, their small stem, and the mean of their patches as features."""

import pytest
import torch
from torch import Tensor

from ssl_tasks.backbones import build_backbone
from ssl_tasks.backbones.vit import embed, encode, fix_positions, grid_of, require_vit, sincos_positions
from ssl_tasks.errors import RequestError


def vit(shape: tuple[int, int, int] = (3, 16, 16), **options):
    return build_backbone("test_vit", modality="image", input_shape=shape, **options)


@pytest.mark.parametrize(
    ("shape", "patch"), [((1, 8, 8), 2), ((3, 28, 28), 2), ((3, 32, 32), 4), ((3, 64, 64), 8), ((3, 48, 32), 4)]
)
def test_the_small_stem_has_eight_patches_a_side_or_patches_of_two_pixels(shape, patch):
    small = vit(shape)
    assert small.patch_embed.patch_size == (patch, patch)
    assert small(torch.randn(2, *shape)).shape == (2, small.num_features)


def test_above_64_pixels_and_where_asked_the_patches_are_those_of_the_network():
    assert vit((3, 96, 96)).patch_embed.patch_size == (16, 16)
    assert vit((3, 64, 64), stem="standard").patch_embed.patch_size == (16, 16)
    assert vit((3, 96, 96), stem="small").patch_embed.patch_size == (12, 12)
    assert vit((3, 512, 512), stem="small").patch_embed.patch_size == (16, 16)  # never larger than its own


def test_small_patches_take_smaller_views_and_refuse_those_that_they_do_not_divide():
    views = vit((3, 32, 32), view_sides={"augment.policies.local.size": 16})
    assert views(torch.randn(2, 3, 16, 16)).shape == (2, views.num_features)
    with pytest.raises(RequestError, match=r"augment\.policies\.local\.size: test_vit takes images of 32 x 32 px"):
        vit((3, 32, 32), view_sides={"augment.policies.local.size": 18})


def test_from_inside_a_vit_computes_what_it_computes():
    whole = vit(pool="average").eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = encode(whole, embed(whole, images))
    torch.testing.assert_close(tokens, whole.forward_features(images))
    torch.testing.assert_close(tokens[:, whole.num_prefix_tokens :].mean(dim=1), whole(images))
    torch.testing.assert_close(encode(whole, embed(whole, images))[:, 0], vit().eval()(images))
    assert grid_of(whole, images) == (8, 8)


def test_nothing_looks_at_tokens_that_are_not_visible():
    inside = vit().eval()
    tokens = embed(inside, torch.randn(2, 3, 16, 16))
    short = encode(inside, tokens[:, :9])
    visible = torch.arange(tokens.shape[1]).expand(2, -1) < 9
    torch.testing.assert_close(encode(inside, tokens, visible)[:, :9], short, rtol=1e-4, atol=1e-5)


def naive_positions(height: int, width: int, dim: int) -> Tensor:
    table = torch.zeros(height, width, dim, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for k in range(dim // 4):
                rate = torch.tensor(10000.0, dtype=torch.float64) ** (-k / (dim // 4))
                for part, value in enumerate((x * rate, x * rate, y * rate, y * rate)):
                    table[y, x, part * (dim // 4) + k] = value.cos() if part % 2 else value.sin()
    return table.view(height * width, dim).float()


def test_positions_are_sines_and_cosines_of_column_and_row():
    torch.testing.assert_close(sincos_positions(2, 3, 8), naive_positions(2, 3, 8))
    assert torch.equal(sincos_positions(2, 2, 10)[:, 8:], torch.zeros(4, 2))


def test_fixed_positions_are_written_and_not_learned():
    network = require_vit(vit(), "mae")
    fix_positions(network)
    table = sincos_positions(8, 8, network.embed_dim)
    assert torch.equal(network.pos_embed[0, network.num_prefix_tokens :], table)
    assert torch.equal(network.pos_embed[0, 0], torch.zeros(network.embed_dim))
    assert not network.pos_embed.requires_grad
