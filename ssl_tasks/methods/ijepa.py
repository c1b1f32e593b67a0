"""I-JEPA: predict a teacher's features of hidden blocks of an image from what is visible (arXiv 2301.08243).

pretrain: {backbone: vit_tiny_patch16_224, method: {name: ijepa}}
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.backbones.vit import PatchTokens, embed, encode, fix_positions, grid_of, sincos_positions, through
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec
from ssl_tasks.methods.patches import Grid, PatchMethod, hidden_first, narrow_blocks, narrow_width, pick
from ssl_tasks.methods.teachers import Teacher
from ssl_tasks.modalities.image_augment.draw import boxes
from ssl_tasks.modalities.image_augment.erase import inside

TARGET_SCALE, TARGET_ASPECT = (0.15, 0.2), (0.75, 1.5)
CONTEXT_SCALE = (0.85, 1.0)
"""Shares of the patches, and the aspect of targets (section 3, "Targets" and "Context"); a context is a square."""
MIN_SIDE = 4
NUM_DRAWS = 4
"""Sets of blocks that are drawn for a row, of which the one that leaves most to see is taken: on small grids targets
may cover nearly everything (the paper's code draws anew until enough is left)."""


class IJEPAConfig(MethodConfig):
    """Defaults of the paper, section 4 and appendix A."""

    name: Literal["ijepa"]
    num_targets: int = Field(4, ge=1)
    """Blocks that are predicted, which may overlap."""
    momentum: float = Field(0.996, ge=0, lt=1)
    """Of the teacher at the start; it climbs to 1 in a line."""
    predictor_dim: int | None = Field(None, ge=32)
    """Half the backbone's width where not set, as 384 for a ViT-B; a multiple of 32."""
    predictor_depth: int = Field(6, ge=1)


def draw_blocks(keys: Tensor, grid: Grid, num_targets: int) -> tuple[Tensor, Tensor]:
    """Blocks of patches, of a size of their own in each row.

    Args:
        keys: (B,).

    Returns:
        The context without its overlap with targets, bool (B, N) with one patch or more, and the targets, bool
        (B, num_targets, N).
    """
    contexts, targets, sizes = [], [], []
    for number in range(NUM_DRAWS):
        stream = f"ijepa.{number}"
        drawn = [boxes(keys, f"{stream}.{k}", TARGET_SCALE, TARGET_ASPECT, *grid) for k in range(num_targets)]
        target = torch.stack([inside(box, *grid).flatten(1) for box in drawn], dim=1)
        square = inside(boxes(keys, f"{stream}.context", CONTEXT_SCALE, (1.0, 1.0), *grid), *grid).flatten(1)
        left = square & ~target.any(dim=1)
        size = left.sum(dim=1)
        contexts.append(torch.where(size[:, None] > 0, left, square))  # something must be seen
        targets.append(target)
        sizes.append(size)
    best, row = torch.stack(sizes).argmax(dim=0), torch.arange(len(keys), device=keys.device)
    return torch.stack(contexts)[best, row], torch.stack(targets)[best, row]


def prediction_loss(predicted: Tensor, target: Tensor, there: Tensor) -> Tensor:
    """Smooth L1 distance to the teacher's normalized features, averaged within a block, then over blocks.

    The paper's formula has squares; its code, and so its results, this. Blocks weigh equally whatever their size, so
    that rows are independent of each other.

    Args:
        predicted, target: (R, T, D), R blocks of at most T patches; the target takes no gradient.
        there: bool (R, T), which of them a block has.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    normalized = functional.layer_norm(target.detach().to(dtype), target.shape[-1:])
    error = functional.smooth_l1_loss(predicted.to(dtype), normalized, reduction="none").mean(dim=2)
    return ((error * there).sum(dim=1) / there.sum(dim=1)).mean()


class IJEPA(PatchMethod):
    """A ViT on the context, a teacher on the image, and a narrow ViT between them."""

    def __init__(self, config: IJEPAConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        vit = self.vit
        if min(vit.patch_embed.grid_size) < MIN_SIDE:
            rows, columns = vit.patch_embed.grid_size
            raise RequestError(
                f"pretrain.backbone: ijepa hides blocks of patches, and {rows} x {columns} of them are too few; "
                "use larger images, or smaller patches (pretrain.stem=small)"
            )
        self.width = narrow_width(config.predictor_dim, vit, "predictor_dim")
        fix_positions(vit)
        self.teacher = Teacher(PatchTokens(vit))
        self.to_predictor = nn.Linear(vit.embed_dim, self.width)
        self.mask_token = nn.Parameter(torch.empty(self.width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.predictor = narrow_blocks(self.width, config.predictor_depth)
        self.predictor_norm = nn.LayerNorm(self.width)
        self.from_predictor = nn.Linear(self.width, vit.embed_dim)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the distance of predicted from actual features, which have deviation 1."""
        (view,) = batch.views
        grid, num_targets = grid_of(self.vit, view), self.config.num_targets
        context, targets = draw_blocks(batch.keys, grid, num_targets)
        seen, where = self._encode(view, context)
        there = targets.flatten(0, 1)  # (B * M, N)
        wanted = hidden_first(there, int(there.sum(dim=1).max()))  # (B * M, T)
        real = there.gather(1, wanted)
        predicted = self._predict(seen, where, wanted, real, grid)
        actual = self.teacher(view).repeat_interleave(num_targets, 0)
        return {"loss": prediction_loss(predicted, pick(actual, wanted), real)}

    def _encode(self, view: Tensor, context: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens (B, P + K, D) of the context's patches, their places (B, K), and which of them are not padding."""
        tokens, prefix = embed(self.vit, view), self.vit.num_prefix_tokens
        index = hidden_first(context, int(context.sum(dim=1).max()))
        real = context.gather(1, index)
        chosen = torch.cat([tokens[:, :prefix], pick(tokens[:, prefix:], index)], dim=1)
        return encode(self.vit, chosen, _with_prefix(real, prefix)), (index, real)

    def _predict(self, seen: Tensor, where: tuple[Tensor, Tensor], wanted: Tensor, real: Tensor, grid: Grid) -> Tensor:
        """(B * M, T, D) features at the places `wanted` (B * M, T) of each row's M blocks."""
        index, real_context = where
        tokens, prefix = self.to_predictor(seen), self.vit.num_prefix_tokens
        places = sincos_positions(*grid, self.width).to(tokens)
        tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:] + places[index]], dim=1)
        tokens = tokens.repeat_interleave(self.config.num_targets, 0)
        visible = _with_prefix(real_context, prefix).repeat_interleave(self.config.num_targets, 0)
        tokens = torch.cat([tokens, self.mask_token.to(tokens.dtype) + places[wanted]], dim=1)
        tokens = through(self.predictor, tokens, torch.cat([visible, real], dim=1))
        features: Tensor = self.from_predictor(self.predictor_norm(tokens[:, -wanted.shape[1] :]))
        return features

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        momentum = self.config.momentum + (1.0 - self.config.momentum) * progress
        self.teacher.follow(PatchTokens(self.vit), momentum)


def _with_prefix(real: Tensor, prefix: int) -> Tensor:
    return functional.pad(real, (prefix, 0), value=True)


SPEC = MethodSpec(
    name="ijepa",
    config=IJEPAConfig,
    method=IJEPA,
    modalities=("image",),
    family="prediction of what is hidden",
    paper="Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture, arXiv 2301.08243",
    needs=("a ViT",),
)
