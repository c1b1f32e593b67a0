"""What methods that hide patches share: N patches, row by row, and bool (B, N) masks drawn from per-row keys."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ssl_tasks.backbones import Pool
from ssl_tasks.backbones.vit import require_vit
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Method, ViewSpec
from ssl_tasks.modalities.image_augment.draw import boxes
from ssl_tasks.modalities.image_augment.erase import BLOCK_ASPECT, inside
from ssl_tasks.policy import CROP
from ssl_tasks.randomness import uniform

HEAD_WIDTH = 32
"""Of each head of attention in what predicts: 512 / 16 in MAE, 384 / 12 in I-JEPA."""
MAX_BLOCKS = 20
"""Rectangles that are tried for a row (BEiT's code gives up after ten in a row that do not fit)."""
Grid = tuple[int, int]
"""Patches from top to bottom and from left to right."""


class PatchMethod(Method):
    """A method on the patches of a ViT, whose features are their mean."""

    views: ClassVar[ViewSpec] = ViewSpec((CROP,))
    pool: ClassVar[Pool] = "average"

    def __init__(self, config: Any, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        require_vit(backbone, config.name)

    @property
    def vit(self) -> VisionTransformer:
        """The backbone."""
        return require_vit(self.backbone, self.config.name)


def narrow_width(asked: int | None, vit: VisionTransformer, key: str) -> int:
    """Width of the blocks that predict from a ViT's tokens: half of its own where nothing is asked.

    Raises:
        RequestError: names `key`, whose value the attention's heads do not divide.
    """
    width = asked or max(HEAD_WIDTH, vit.embed_dim // 2 // HEAD_WIDTH * HEAD_WIDTH)
    if width % HEAD_WIDTH:
        raise RequestError(f"pretrain.method.{key}: {width} is no multiple of {HEAD_WIDTH}")
    return width


def narrow_blocks(width: int, depth: int) -> nn.Sequential:
    """Blocks of attention for (B, L, width)."""
    return nn.Sequential(*(Block(width, width // HEAD_WIDTH, qkv_bias=True) for _ in range(depth)))


def num_hidden(count: int, ratio: float) -> int:
    """How many of `count` places the share `ratio` is, rounded: one at least, and one stays."""
    return min(max(1, round(ratio * count)), count - 1)


def random_masks(keys: Tensor, stream: str, count: int, hidden: int) -> Tensor:
    """True for exactly `hidden` of `count` places in every row, at random."""
    ranks = uniform(keys, stream, count).argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < hidden


def block_masks(keys: Tensor, stream: str, count: Tensor, grid: Grid) -> Tensor:
    """Bool (B, N), at most `count` (B,) of each row, in rectangles of any aspect (BEiT, arXiv 2106.08254, algorithm 1).

    A rectangle that would hide more than is left to hide is not taken, so that a row may stay below its count.
    """
    hidden = torch.zeros(len(keys), *grid, dtype=torch.bool, device=keys.device)
    num_patches, smallest = grid[0] * grid[1], max(1, min(grid) // 3) ** 2
    for number in range(MAX_BLOCKS):
        left = count - hidden.sum(dim=(1, 2))
        if not bool((left > 0).any()):
            break
        scale = (smallest / num_patches, left / num_patches)
        block = inside(boxes(keys, f"{stream}.{number}", scale, BLOCK_ASPECT, *grid), *grid)[:, 0]
        new = (block & ~hidden).sum(dim=(1, 2))
        hidden |= block & ((new > 0) & (new <= left))[:, None, None]
    return hidden.flatten(1)


def patchify(images: Tensor, grid: Grid) -> Tensor:
    """(B, C, H, W) -> (B, N, C * h * w): the pixels of each patch, channel by channel, patches row by row."""
    num_rows, channels, height, width = images.shape
    h, w = height // grid[0], width // grid[1]
    cut = images.reshape(num_rows, channels, grid[0], h, grid[1], w)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(num_rows, grid[0] * grid[1], channels * h * w)


def hidden_first(hidden: Tensor, count: int) -> Tensor:
    """(B, count) indices of each row's hidden places, in order; where `count` is larger, visible ones follow."""
    return (~hidden).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, K, D): tokens (B, N, D) at `index` (B, K)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


def put(tokens: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """`tokens` (B, N, D) with `values` (B, K, D) in the places `index` (B, K)."""
    where = index[..., None].expand(-1, -1, tokens.shape[2])
    return tokens.scatter(1, where, values.to(tokens.dtype))
