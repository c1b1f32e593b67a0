"""Tiles pixel by pixel, the set of permutations against the paper's algorithm, two processes against one."""

import itertools

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import TinyConv, assert_ranks_agree, one_step, rows, tiny, tiny_batch
from torch import Tensor, nn

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.jigsaw import SPEC, JigsawConfig, cell_and_tile, permutation_set
from ssl_tasks.methods.pieces import as_input, cut, input_size, integers
from ssl_tasks.randomness import row_keys

SMALL = {"num_permutations": 20, "tile_dim": 3, "hidden_dim": 8}


def distance(a: Tensor, b: Tensor) -> int:
    return int((a != b).sum())


def naive_set(num_tiles: int, count: int) -> list[tuple[int, ...]]:
    """Algorithm 1 of arXiv 1603.09246, candidate by candidate; ties as `permutation_set` documents them."""
    left = list(itertools.permutations(range(num_tiles)))
    chosen = [left.pop(0)]
    while len(chosen) < count:
        apart = [[sum(a != b for a, b in zip(candidate, one, strict=True)) for one in chosen] for candidate in left]
        best = max(range(len(left)), key=lambda number: (sum(apart[number]), min(apart[number]), -number))
        chosen.append(left.pop(best))
    return chosen


@pytest.mark.parametrize(("num_tiles", "count"), [(4, 2), (4, 24), (6, 40)])
def test_the_set_of_permutations_is_the_papers_greedy_one(num_tiles, count):
    assert list(map(tuple, permutation_set(num_tiles, count).tolist())) == naive_set(num_tiles, count)


def test_of_nine_tiles_the_first_nine_permutations_share_no_place_and_none_comes_twice():
    found = permutation_set(9, 60)
    assert all(distance(a, b) == 9 for a, b in itertools.combinations(found[:9], 2))
    assert len({tuple(order) for order in found.tolist()}) == 60
    assert all(sorted(order) == list(range(9)) for order in found.tolist())
    assert min(distance(a, b) for a, b in itertools.combinations(found, 2)) >= 4  # by number alone it would be 2


def test_patches_are_cut_where_they_should():
    images = rows(2, 3, 6, 7, seed=0)
    tops, lefts = torch.tensor([[0, 3], [2, 1]]), torch.tensor([[4, 0], [1, 3]])
    found = cut(images, tops, lefts, (3, 2))
    assert found.shape == (2, 2, 3, 3, 2)
    for b, t in itertools.product(range(2), range(2)):
        top, left = int(tops[b, t]), int(lefts[b, t])
        assert torch.equal(found[b, t], images[b, :, top : top + 3, left : left + 2])


def test_every_patch_is_normalized_on_its_own_and_resized():
    patches = 5 + 3 * rows(2, 4, 3, 8, 8, seed=0)
    found = as_input(patches, (8, 8))
    assert found.shape == (8, 3, 8, 8)
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros(8, 3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        found.var((2, 3), correction=0), torch.ones(8, 3, dtype=torch.float64), atol=1e-5, rtol=0
    )
    own = patches[1, 2, 0]
    torch.testing.assert_close(found[6, 0], (own - own.mean()) / (own.var(correction=0) + 1e-5).sqrt())
    assert torch.isfinite(as_input(torch.ones_like(patches), (8, 8))).all()  # of one colour
    assert as_input(patches, (16, 12)).shape == (8, 3, 16, 12)


@pytest.mark.parametrize(
    ("side", "grid", "gap", "expected"),
    [
        *[(225, 3, 11 / 75, (75, 64)), (32, 3, 11 / 75, (10, 8)), (28, 2, 11 / 75, (14, 11)), (8, 3, 11 / 75, (2, 2))],
        *[(8, 2, 0.0, (4, 4)), (30, 3, 0.9, (10, 2))],
    ],
)
def test_tiles_leave_a_gap_and_keep_two_pixels(side, grid, gap, expected):
    assert cell_and_tile(side, grid, gap) == expected


@pytest.mark.parametrize("grid", [2, 3])
def test_the_tile_of_the_named_order_stands_in_each_place_anywhere_in_its_cell(grid):
    num_orders = 24 if grid == 2 else 20
    method = tiny(SPEC, **{**SMALL, "num_permutations": num_orders}, grid=grid)
    side = 5 * grid + 1  # cells of five pixels, tiles of four
    pixel = torch.arange(side * side, dtype=torch.float64).view(1, 1, side, side).expand(300, 2, side, side)
    tiles, order = method.shuffled(pixel, row_keys(0, 0, torch.arange(300)))
    assert tiles.shape == (300, grid**2, 2, 4, 4)
    corner = tiles[:, :, 0, 0, 0].long()
    row, column = corner // side, corner % side
    assert torch.equal(row // 5 * grid + column // 5, method.permutations[order])
    assert set((row % 5).unique().tolist()) == set((column % 5).unique().tolist()) == {0, 1}
    assert int((row[:, 0] % 5 != row[:, 1] % 5).sum()) > 100  # each tile for itself
    assert len(order.unique()) == num_orders


def test_the_loss_and_its_gradient_against_the_paper():
    """-log of the share of the own order among all, from the tiles' features side by side (section 3.1)."""
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    tiles, order = method.shuffled(batch.views[0], batch.keys)
    patches = as_input(tiles, (6, 6))
    features = method.tile_head(method.backbone(patches))
    losses = []
    for image in range(8):
        shares = method.classifier(torch.cat([features[9 * image + tile] for tile in range(9)])).exp()
        losses.append(-torch.log(shares[order[image]] / shares.sum()))
    loss, expected = method(batch, "main")["loss"], sum(losses) / 8
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    weights = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_permutation_accuracy_counts_orders_that_are_told():
    method = tiny(SPEC, **SMALL)
    batch = tiny_batch(method)
    _, order = method.shuffled(batch.views[0], batch.keys)
    with torch.no_grad():
        method.classifier[-1].weight.zero_()
        method.classifier[-1].bias.zero_()[order[0]] = 9.0
    assert method(batch, "main")["permutation_accuracy"] == (order == order[0]).float().mean()


class FixedSize(TinyConv):
    """A network for one size of input only, as vision transformers are."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == (40, 40), "40 px only"
        return super().forward(x)


@pytest.mark.parametrize(("side", "expected"), [(8, 8), (10, 10), (28, 16), (32, 16), (33, 17), (224, 112)])
def test_patches_become_half_an_image_but_not_too_small(side, expected):
    backbone = TinyConv().train()
    assert input_size(backbone, (2, side, side), None, "tile_size") == (expected, expected)
    assert backbone.training
    assert not backbone.layers[1].num_batches_tracked


def test_the_backbones_size_is_taken_where_it_has_one_and_another_is_refused_by_key():
    assert input_size(FixedSize(), (2, 40, 40), None, "tile_size") == (40, 40)
    assert input_size(FixedSize(), (2, 40, 40), 40, "tile_size") == (40, 40)
    with pytest.raises(RequestError, match=r"pretrain\.method\.tile_size: .*20 x 20 px \(40 px only"):
        SPEC.method(JigsawConfig(name="jigsaw", tile_size=20, **SMALL), FixedSize(), (2, 40, 40))


@pytest.mark.parametrize(("grid", "side"), [(2, 3), (3, 5)])
def test_images_too_small_are_refused_by_key(grid, side):
    backbone = nn.Sequential(nn.Conv2d(2, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone.num_features = 6
    config = JigsawConfig(name="jigsaw", grid=grid, **SMALL)
    with pytest.raises(RequestError, match=rf"pretrain\.method\.grid: .*{2 * grid} px or more, and these have {side}"):
        SPEC.method(config, backbone, (2, 12, side))
    SPEC.method(config, backbone, (2, 12, side + 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("grid", 4), ("gap", 1.0), ("gap", -0.1), ("num_permutations", 1), ("tile_size", 1), ("hidden_dim", 0)],
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        JigsawConfig(name="jigsaw", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_more_orders_than_there_are_are_refused_and_the_default_is_the_papers():
    with pytest.raises(ValidationError, match="num_permutations: 2 x 2 tiles have 24 orders"):
        JigsawConfig(name="jigsaw", grid=2, num_permutations=25)
    sizes = {"tile_dim": 2, "hidden_dim": 2}
    assert tiny(SPEC, grid=2, **sizes).permutations.shape == (24, 4)
    assert tiny(SPEC, **sizes).permutations.shape == (1000, 9)


def test_integers_are_uniform_and_the_same_whatever_the_row_stands_beside():
    keys = row_keys(0, 0, torch.arange(4000))
    found = integers(keys, "test", 2, 5)
    assert torch.equal(integers(keys[7:9], "test", 2, 5), found[7:9])
    assert found[:, 0].bincount().tolist() == pytest.approx([800] * 5, abs=100)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, **SMALL)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
