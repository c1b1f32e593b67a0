"""What is hidden of an image: one rectangle, or a share of its patches."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_tasks.modalities.image_augment import draw
from ssl_tasks.modalities.image_augment.storage import whole
from ssl_tasks.randomness import uniform

BLOCK_SHARE = 0.2
"""Of the masked area that a block covers at least; BEiT (arXiv 2106.08254, algorithm 1): 16 of 0.4 x 196 patches."""
BLOCK_ASPECT = (0.3, 1 / 0.3)
MAX_BLOCKS = 64
"""More are not drawn; what they have left is filled from the top."""


def hide(images: Tensor, hidden: Tensor, fill: Tensor) -> Tensor:
    """`fill` (C or 1, 1, 1) from 0 to 1 in the place of planes (n, C, H, W) where `hidden` (n, 1, H, W) is true."""
    value = whole(255 * fill) if images.dtype == torch.uint8 else fill
    return torch.where(hidden, value, images)


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """(n, 1, height, width) bool: which pixels boxes (n, 4) of top, left, height and width cover."""
    top, left, h, w = boxes[:, :, None].unbind(1)
    y, x = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    rows, columns = (y >= top) & (y < top + h), (x >= left) & (x < left + w)
    return (rows[:, :, None] & columns[:, None])[:, None]


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches; the last ones are smaller where the side is no multiple of `patch`."""
    return -(-height // patch), -(-width // patch)


def draw_patches(keys: Tensor, ratio: float, grid: tuple[int, int], kind: str) -> Tensor:
    """(B, rows * columns) bool, exactly the share `ratio` of each row, rounded: patches at random, or in blocks."""
    count = grid[0] * grid[1]
    needed = round(ratio * count)
    order = _block_numbers(keys, ratio, grid, needed) if kind == "block" else uniform(keys, "mask", count)
    return order.argsort(dim=1, stable=True).argsort(dim=1) < needed


def _block_numbers(keys: Tensor, ratio: float, grid: tuple[int, int], needed: int) -> Tensor:
    """(B, rows * columns): the number of the first block that covers a patch.

    Blocks are drawn until all rows have enough. A row that had enough before loses nothing by those that follow,
    which stand last in its order: its mask does not depend on other rows.
    """
    first = torch.full((len(keys), *grid), MAX_BLOCKS, device=keys.device)
    share = (BLOCK_SHARE * ratio, ratio)
    for number in range(MAX_BLOCKS):
        if int((first < MAX_BLOCKS).flatten(1).sum(1).min()) >= needed:
            break
        block = inside(draw.boxes(keys, f"block {number}", share, BLOCK_ASPECT, *grid), *grid)[:, 0]
        first.masked_fill_(block & (first == MAX_BLOCKS), number)
    return first.flatten(1)


def enlarge(patches: Tensor, grid: tuple[int, int], patch: int, height: int, width: int) -> Tensor:
    """(n, 1, height, width) bool of patches (n, rows * columns)."""
    pixels = patches.view(-1, 1, *grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return pixels[:, :, :height, :width]
