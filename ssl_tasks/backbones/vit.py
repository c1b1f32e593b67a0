"""A ViT from the inside, for methods that hide or predict patches: (B, N, D) tokens of N patches, row by row.

vit = require_vit(backbone, "mae")
tokens = embed(vit, images)                     # before the blocks, with positions
features = encode(vit, tokens)                  # after the last norm
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_tasks.errors import RequestError


def require_vit(backbone: nn.Module, method: str) -> VisionTransformer:
    """`backbone`, a plain ViT of timm.

    Raises:
        RequestError: it is another kind of network.
    """
    if not isinstance(backbone, VisionTransformer):
        raise RequestError(
            f"pretrain.backbone: {method} works on the patches of a ViT, and {type(backbone).__name__} has none; use a "
            "ViT, such as vit_tiny_patch16_224 or, small, test_vit"
        )
    return backbone


def grid_of(vit: VisionTransformer, images: Tensor) -> tuple[int, int]:
    """Patches from top to bottom and from left to right."""
    height, width = vit.patch_embed.patch_size
    return images.shape[2] // height, images.shape[3] // width


def embed(vit: VisionTransformer, images: Tensor, hidden: Tensor | None = None, token: Tensor | None = None) -> Tensor:
    """(B, P + N, D) tokens with positions, P of them (class and register tokens) before the patches.

    Args:
        images: (B, C, H, W).
        hidden, token: bool (B, N), and the (D,) that stands in the place of those patches (SimMIM, iBOT).
    """
    patches = vit.patch_embed(images)  # (B, N, D), or (B, h, w, D) where positions are interpolated
    if hidden is not None and token is not None:
        where = hidden.view(patches.shape[:-1])[..., None]
        patches = torch.where(where, token.to(patches.dtype), patches)
    tokens: Tensor = vit._pos_embed(patches)
    return tokens


def encode(vit: VisionTransformer, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
    """(B, L, D) after the blocks and the norm.

    Args:
        tokens: (B, L, D) with positions, as `embed` gives them or some of them.
        visible: bool (B, L); nothing looks at the others, which pad rows to one length.
    """
    tokens = through(vit.blocks, vit.norm_pre(tokens), visible)
    normed: Tensor = vit.norm(tokens)
    return normed


class PatchTokens(nn.Module):
    """The tokens of a ViT's patches, (B, C, H, W) -> (B, N, D), for a teacher to be a copy of."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor) -> Tensor:
        """As `encode` gives them, without class and register tokens."""
        return encode(self.vit, embed(self.vit, images))[:, self.vit.num_prefix_tokens :]


def through(blocks: nn.Sequential, tokens: Tensor, visible: Tensor | None = None) -> Tensor:
    """`blocks` of attention, one after the other; see `encode` for `visible`."""
    mask = None if visible is None else visible[:, None, None, :]
    for block in blocks:
        tokens = block(tokens, attn_mask=mask)
    return tokens


def sincos_positions(height: int, width: int, dim: int) -> Tensor:
    """(height * width, dim) sines and cosines of rows and columns (MoCo v3, arXiv 2104.02057, and MAE, 2111.06377).

    A quarter of the dimensions each for the sine and cosine of the column and of the row, at frequencies
    10000^(-k / (dim / 4)); what is left over where 4 does not divide `dim` is 0.
    """
    quarter = dim // 4
    frequencies = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / max(1, quarter))
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    parts = []
    for place in (columns, rows):
        angles = place.reshape(-1, 1) * frequencies
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=1)
    return torch.nn.functional.pad(table, (0, dim - table.shape[1])).float()


def fix_positions(vit: VisionTransformer) -> None:
    """Give the patches sine-cosine positions that are not learned, and prefix tokens none, in place.

    Leaves networks without absolute positions as they are.
    """
    if vit.pos_embed is None:
        return
    rows, columns = vit.patch_embed.grid_size
    table = sincos_positions(rows, columns, vit.embed_dim)
    prefix = vit.pos_embed.shape[1] - len(table)
    with torch.no_grad():
        vit.pos_embed.copy_(torch.nn.functional.pad(table, (0, 0, prefix, 0))[None])
    vit.pos_embed.requires_grad_(False)
