"""SimMIM: a ViT sees mask tokens in the place of hidden squares, and one linear layer predicts their pixels
(arXiv 2111.09886).

pretrain: {backbone: vit_tiny_patch16_224, method: {name: simmim, mask_ratio: 0.6}}
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.backbones.vit import embed, encode, fix_positions, grid_of
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec
from ssl_tasks.methods.patches import Grid, PatchMethod, num_hidden, patchify, random_masks


class SimMIMConfig(MethodConfig):
    """Defaults of the paper, sections 3.2 and 4.1."""

    name: Literal["simmim"]
    mask_ratio: float = Field(0.6, gt=0, lt=1)
    """Share of the squares that is hidden; at least one stays visible, and one is hidden."""
    mask_patches: int = Field(2, ge=1)
    """Side of a square in patches: 32 pixels in patches of 16 (table 1)."""


def masked_l1(predicted: Tensor, images: Tensor, hidden: Tensor, grid: Grid) -> Tensor:
    """Absolute error, averaged over a row's hidden pixels and their channels (equation 2), then over rows.

    Args:
        predicted: (B, N, C * h * w), all patches.
        images: (B, C, H, W).
        hidden: bool (B, N).
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    error = (predicted.to(dtype) - patchify(images, grid).to(dtype)).abs().mean(dim=2)
    return ((error * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()


class SimMIM(PatchMethod):
    """A ViT with mask tokens, and a linear head."""

    def __init__(self, config: SimMIMConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        patch = self.vit.patch_embed
        if config.mask_patches >= min(patch.grid_size):
            raise RequestError(
                f"pretrain.method.mask_patches: the images have {patch.grid_size[0]} x {patch.grid_size[1]} patches, "
                f"which a square of {config.mask_patches} patches a side would hide at once"
            )
        fix_positions(self.vit)
        self.mask_token = nn.Parameter(torch.empty(self.vit.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.to_pixels = nn.Linear(self.vit.embed_dim, input_shape[0] * math.prod(patch.patch_size))

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, in train standard deviations."""
        (view,) = batch.views
        grid = grid_of(self.vit, view)
        hidden = self._masks(batch.keys, grid)
        tokens = encode(self.vit, embed(self.vit, view, hidden, self.mask_token))
        predicted = self.to_pixels(tokens[:, self.vit.num_prefix_tokens :])
        return {"loss": masked_l1(predicted, view, hidden, grid)}

    def _masks(self, keys: Tensor, grid: Grid) -> Tensor:
        """Bool (B, N), in whole squares, the last of which may be cut."""
        side = self.config.mask_patches
        rows, columns = -(-grid[0] // side), -(-grid[1] // side)
        count = rows * columns
        squares = random_masks(keys, "simmim.mask", count, num_hidden(count, self.config.mask_ratio)).view(
            -1, rows, columns
        )
        patches = squares.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return patches[:, : grid[0], : grid[1]].flatten(1)


SPEC = MethodSpec(
    name="simmim",
    config=SimMIMConfig,
    method=SimMIM,
    modalities=("image",),
    family="prediction of what is hidden",
    paper="SimMIM: A Simple Framework for Masked Image Modeling, arXiv 2111.09886",
    needs=("a ViT",),
)
