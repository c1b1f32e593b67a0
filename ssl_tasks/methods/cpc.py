"""CPC: from the patches of an image's upper rows, tell its lower ones from all other patches (arXiv 1807.03748, section
3.2, and 1905.09272).

pretrain: {method: {name: cpc}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.pieces import refusal
from ssl_tasks.randomness import uniform
from ssl_tasks.training.collectives import gather_with_grad, rank

MIN_PATCH = 4
OVERLAP = 2
"""Patches in one place, at most: neighbours share half their side, and the next but one nothing."""
EMBEDDING_SCALE = 0.1
"""Of predictions, as in arXiv 1905.09272, appendix C: products of untrained embeddings are large."""


class CPCConfig(MethodConfig):
    """Defaults of 1905.09272, sections 3 and 4, but for sampled negatives."""

    name: Literal["cpc"]
    patch_size: int | None = Field(None, ge=2)
    """Side in pixels; a quarter of the image's shorter side where not set, so that the grid is 7 x 7, at least 4."""
    max_ahead: int = Field(5, ge=1)
    """Farthest row that is predicted, counted from the context's; rows that overlap it are passed over."""
    context_dim: int = Field(256, ge=1)
    context_layers: int = Field(5, ge=1)
    embedding_dim: int = Field(64, ge=1)
    num_negatives: int = Field(4, ge=1)
    """Patches of each image of the batch that are candidates; the papers take all, some 10^4 at 256 images."""


def patches(images: Tensor, side: int) -> Tensor:
    """(B, R, Q, C, side, side): R rows of Q patches, each half a patch from the next; what is over is left out."""
    stride = _stride(side)
    return images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)


def _stride(side: int) -> int:
    return -(-side // OVERLAP)


def patch_info_nce(predicted: Tensor, own: Tensor, numbers: Tensor, pool: Tensor, pool_numbers: Tensor) -> Tensor:
    """-log of a patch's share among it and all of the pool that are not it (equation 4 of 1807.03748), a mean.

    Args:
        predicted, own: (M, D) predictions and the patches that they are of, in float32 or wider.
        numbers: (M,) int64, which patches these are.
        pool, pool_numbers: (K, D) and (K,), candidates in the same numbering.
    """
    positive = (predicted * own).sum(dim=1, keepdim=True)
    itself = numbers[:, None] == pool_numbers
    logits = torch.cat([positive, (predicted @ pool.T).masked_fill(itself, -torch.inf)], dim=1)  # (M, 1 + K)
    return functional.cross_entropy(logits, torch.zeros_like(numbers))


class MaskedConv(nn.Module):
    """A residual block that sees its own row and those above (1905.09272, appendix C): (B, D, R, Q) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.ZeroPad2d((1, 1, 1, 0)),  # left, right, top: never below
            nn.Conv2d(width, width, (2, 3)),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """As deep as there are blocks, so many rows up and columns to the sides reach a place."""
        y: Tensor = x + self.layers(x)
        return y


class CPC(Method):
    """Backbone on patches, a context network over their rows, and a predictor for each distance."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment",))
    couples_batch: ClassVar[bool] = True

    def __init__(self, config: CPCConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        channels, height, width = input_shape
        self.side = config.patch_size or max(MIN_PATCH, min(height, width) // 4)
        num_rows = (height - self.side) // _stride(self.side) + 1
        if num_rows < 2 or width < self.side:
            raise RequestError(
                f"pretrain.method.patch_size: {self.side} px leave no two rows of patches in images of {width} x "
                f"{height} px; use {max(2, min(height, width) // 2)} or less"
            )
        reason = refusal(backbone, (channels, self.side, self.side))
        if reason is not None:
            raise RequestError(
                f"pretrain.method.patch_size: the backbone takes no patches of {self.side} x {self.side} px ({reason})"
                "; use another size, or a pretrain.backbone for images of any size such as resnet18"
            )
        # rows nearer than OVERLAP show a part of the context's own; where there are no others, the last row has to do
        last = min(config.max_ahead, num_rows - 1)
        self.distances = range(min(OVERLAP, last), last + 1)
        self.to_context = nn.Conv2d(self.num_features, config.context_dim, 1)
        self.context = nn.Sequential(*(MaskedConv(config.context_dim) for _ in range(config.context_layers)))
        self.embed = nn.Linear(self.num_features, config.embedding_dim)
        self.predictors = nn.ModuleList(nn.Conv2d(config.context_dim, config.embedding_dim, 1) for _ in self.distances)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, a mean over distances and patches: log of 1 + the number of candidates at chance."""
        (view,) = batch.views
        cut = patches(view, self.side)
        features = self.backbone(cut.flatten(0, 2)).unflatten(0, cut.shape[:3])  # (B, R, Q, F)
        context = self.context(self.to_context(features.permute(0, 3, 1, 2)))  # (B, E, R, Q)
        predicted = [predictor(context) for predictor in self.predictors]  # (B, D, R, Q) each
        embedded = self.embed(features)  # (B, R, Q, D)
        dtype = torch.promote_types(embedded.dtype, torch.float32)
        with torch.autocast(view.device.type, enabled=False):
            return {"loss": self._loss([p.to(dtype) for p in predicted], embedded.to(dtype), batch.keys)}

    def _loss(self, predicted: list[Tensor], embedded: Tensor, keys: Tensor) -> Tensor:
        num_images, num_rows, num_columns, _ = embedded.shape
        per_image = num_rows * num_columns
        numbers = torch.arange(num_images * per_image, device=keys.device) + rank() * num_images * per_image
        drawn = uniform(keys, "cpc.negatives", per_image, torch.float64).argsort(dim=1)[:, : self.config.num_negatives]
        chosen = (drawn + torch.arange(num_images, device=keys.device)[:, None] * per_image).flatten()
        pool = gather_with_grad(embedded.flatten(0, 2)[chosen])  # (images of all ranks x num_negatives, D)
        pool_numbers = gather_with_grad(numbers[chosen])
        grid = numbers.view(num_images, num_rows, num_columns)
        losses = []
        for distance, below in zip(self.distances, predicted, strict=True):
            ahead = EMBEDDING_SCALE * below[:, :, :-distance].permute(0, 2, 3, 1)  # of the row `distance` further down
            own, which = embedded[:, distance:].flatten(0, 2), grid[:, distance:].flatten()
            losses.append(patch_info_nce(ahead.flatten(0, 2), own, which, pool, pool_numbers))
        return torch.stack(losses).mean()


SPEC = MethodSpec(
    name="cpc",
    config=CPCConfig,
    method=CPC,
    modalities=("image",),
    family="contrastive",
    paper="Data-Efficient Image Recognition with Contrastive Predictive Coding, arXiv 1905.09272",
)
