"""Masks hide exactly the share that was asked for; cutout's rectangles and noise have the stated statistics."""

import pytest
import torch

from ssl_tasks.modalities.image_augment import augment, draw, erase, texture
from ssl_tasks.policy import ResolvedPolicy
from ssl_tasks.randomness import row_keys

KEYS = row_keys(5, 0, torch.arange(300))
OFF = {"flip_probability": 0.0, "jitter_probability": 0.0, "gray_probability": 0.0}


@pytest.mark.parametrize("kind", ["random", "block"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.4, 0.75, 0.97, 1.0])
@pytest.mark.parametrize("grid", [(14, 14), (7, 5), (2, 2)])
def test_a_mask_hides_exactly_its_share(grid: tuple[int, int], ratio: float, kind: str) -> None:
    patches = erase.draw_patches(KEYS, ratio, grid, kind)
    assert patches.shape == (300, grid[0] * grid[1])
    assert (patches.sum(1) == round(ratio * grid[0] * grid[1])).all()


def test_random_masks_hide_every_patch_equally_often() -> None:
    patches = erase.draw_patches(row_keys(0, 0, torch.arange(5000)), 0.6, (5, 5), "random").float()
    assert (patches.mean(0) - 0.6).abs().max() < 0.03
    pairs = torch.corrcoef(patches.T) - torch.eye(25)
    assert (pairs.sum(1) + 1).abs().max() < 0.01  # a fixed number of them: each against all others is -1
    assert pairs.abs().max() < 0.1


def neighbours(patches: torch.Tensor) -> float:
    """Share of hidden patches whose right neighbour is hidden too."""
    grid = patches.view(-1, 14, 14)
    return float((grid[:, :, :-1] & grid[:, :, 1:]).sum() / grid[:, :, :-1].sum())


def test_blocks_are_connected_and_random_masks_are_not() -> None:
    random, block = (erase.draw_patches(KEYS, 0.4, (14, 14), kind) for kind in ("random", "block"))
    assert abs(neighbours(random) - 0.4) < 0.03
    assert neighbours(block) > 0.8


@pytest.mark.parametrize(("height", "width", "patch"), [(32, 32, 4), (30, 22, 8), (9, 13, 3)])
def test_patches_cover_whole_squares_of_pixels(height: int, width: int, patch: int) -> None:
    config = ResolvedPolicy(
        **OFF, mask_probability=1.0, mask_ratio=0.5, mask_patch=patch, fill=(0.2, 0.4, 0.6), crop_scale=(1.0, 1.0)
    )
    images = torch.zeros(300, height, width, 3, dtype=torch.uint8)
    views = augment(images, config, KEYS)
    grid = erase.grid_of(height, width, patch)
    patches = erase.draw_patches(KEYS, 0.5, grid, "random").view(300, *grid)
    for y in range(height):
        for x in range(width):
            expected = torch.where(patches[:, y // patch, x // patch, None], torch.tensor([51, 102, 153]), 0)
            assert torch.equal(views[:, y, x].int(), expected.int())


def test_cutout_covers_the_area_and_aspect_that_were_asked_for() -> None:
    keys = row_keys(0, 0, torch.arange(5000))
    boxes = draw.boxes(keys, "cutout", (0.02, 0.33), (1 / 3.3, 1 / 0.3), 200, 200)
    hidden = erase.inside(boxes, 200, 200).float().mean((1, 2, 3))
    assert abs(float(hidden.mean()) - 0.175) < 0.005
    assert 0.018 < float(hidden.min()) < 0.03
    assert 0.3 < float(hidden.max()) < 0.34
    aspect = (boxes[:, 2] / boxes[:, 3]).log()
    assert abs(float(aspect.mean())) < 0.05
    assert abs(float(aspect.std()) - (2 * 1.2) / 12**0.5) < 0.05  # uniform between -log 3.3 and log 3.3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_noise_has_its_deviation_and_is_each_row_s_own(dtype: torch.dtype) -> None:
    top = 255 if dtype == torch.uint8 else 1
    images = torch.full((300, 3, 24, 24), 0.5 * top).to(dtype)
    noisy = (texture.noise(images.clone(), KEYS, (0.02, 0.1)).float() - images.float()) / top
    sigma = draw.between(KEYS, "noise sigma", (0.02, 0.1))[:, 0]
    measured = noisy.flatten(1).std(1)
    assert ((measured - sigma) / sigma).abs().max() < 0.09  # 1728 values: 1.7% standard deviation
    assert abs(float(noisy.mean())) < 1e-3
    pairs = torch.corrcoef(noisy.flatten(1)) - torch.eye(300)
    assert pairs.abs().max() < 0.13
