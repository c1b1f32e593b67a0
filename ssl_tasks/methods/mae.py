"""MAE: a ViT sees a quarter of the patches, a small decoder predicts the pixels of the rest (arXiv 2111.06377).

pretrain: {backbone: vit_tiny_patch16_224, method: {name: mae, mask_ratio: 0.75}}
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.backbones.vit import embed, encode, fix_positions, grid_of, sincos_positions, through
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec
from ssl_tasks.methods.patches import (
    Grid,
    PatchMethod,
    hidden_first,
    narrow_blocks,
    narrow_width,
    num_hidden,
    patchify,
    pick,
    put,
    random_masks,
)


class MAEConfig(MethodConfig):
    """Defaults of the paper, section 4.1 and table 1."""

    name: Literal["mae"]
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that is hidden; at least one patch stays visible, and one is hidden."""
    normalize_patches: bool = True
    """Predict each patch's pixels less its mean, over its deviation (table 1d)."""
    decoder_dim: int | None = Field(None, ge=32)
    """Half the backbone's width where not set, as the paper's 512 for its ViT-L; a multiple of 32."""
    decoder_depth: int = Field(8, ge=1)


def masked_patch_loss(predicted: Tensor, images: Tensor, hidden: Tensor, grid: Grid, normalize: bool) -> Tensor:
    """Mean squared error over the pixels of hidden patches, averaged over rows (section 3).

    Args:
        predicted: (B, N, C * h * w), all patches.
        images: (B, C, H, W).
        hidden: bool (B, N), equally many in each row.
        normalize: compare with pixels less their patch's mean, over its deviation.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    target = patchify(images, grid).to(dtype)
    if normalize:
        var, mean = torch.var_mean(target, dim=2, keepdim=True)
        target = (target - mean) * torch.rsqrt(var + 1e-6)  # the paper's code
    error = (predicted.to(dtype) - target).square().mean(dim=2)
    return (error * hidden).sum() / hidden.sum()


class MAE(PatchMethod):
    """A ViT on what is visible, and a decoder of its own narrow blocks on everything."""

    def __init__(self, config: MAEConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        vit = self.vit
        if vit.patch_embed.num_patches < 2:
            raise RequestError(
                "pretrain.backbone: mae hides some patches and shows others, and the images have one only; use larger "
                "images, or smaller patches (pretrain.stem=small)"
            )
        num_values = input_shape[0] * math.prod(vit.patch_embed.patch_size)
        if config.normalize_patches and num_values == 1:
            raise RequestError(
                "pretrain.method.normalize_patches: patches of one pixel have no deviation; set it to false"
            )
        width = narrow_width(config.decoder_dim, vit, "decoder_dim")
        fix_positions(vit)
        self.to_decoder = nn.Linear(vit.embed_dim, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder = narrow_blocks(width, config.decoder_depth)
        self.decoder_norm = nn.LayerNorm(width)
        self.to_pixels = nn.Linear(width, num_values)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, in squared deviations where patches are normalized: 1 for predicting each patch's mean."""
        (view,) = batch.views
        grid = grid_of(self.vit, view)
        count = grid[0] * grid[1]
        number = num_hidden(count, self.config.mask_ratio)
        hidden = random_masks(batch.keys, "mae.mask", count, number)
        visible = hidden_first(~hidden, count - number)  # (B, V)
        tokens = embed(self.vit, view)
        prefix = self.vit.num_prefix_tokens
        seen = encode(self.vit, torch.cat([tokens[:, :prefix], pick(tokens[:, prefix:], visible)], dim=1))
        predicted = self._decode(seen, visible, grid)
        loss = masked_patch_loss(predicted, view, hidden, grid, self.config.normalize_patches)
        return {"loss": loss}

    def _decode(self, seen: Tensor, visible: Tensor, grid: Grid) -> Tensor:
        """(B, N, C * h * w) from the visible tokens (B, P + V, D), which stand at `visible` (B, V)."""
        tokens = self.to_decoder(seen)
        prefix, tokens = tokens[:, : self.vit.num_prefix_tokens], tokens[:, self.vit.num_prefix_tokens :]
        patches = self.mask_token.to(tokens.dtype).expand(len(tokens), grid[0] * grid[1], -1)
        patches = put(patches, visible, tokens)
        patches = patches + sincos_positions(*grid, tokens.shape[2]).to(patches)
        decoded = self.decoder_norm(through(self.decoder, torch.cat([prefix, patches], dim=1)))
        pixels: Tensor = self.to_pixels(decoded[:, self.vit.num_prefix_tokens :])
        return pixels


SPEC = MethodSpec(
    name="mae",
    config=MAEConfig,
    method=MAE,
    modalities=("image",),
    family="prediction of what is hidden",
    paper="Masked Autoencoders Are Scalable Vision Learners, arXiv 2111.06377",
    needs=("a ViT",),
)
