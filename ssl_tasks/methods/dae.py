"""Denoising autoencoder: reconstruct a sample from a damaged copy (Vincent et al., ICML 2008 and JMLR 11, 2010).

pretrain: {method: {name: dae, mask_rate: 0.25, noise_std: 0.0}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import decoder
from ssl_tasks.methods.noise import draw
from ssl_tasks.randomness import normal, uniform


class DAEConfig(MethodConfig):
    """Corruption as in JMLR 2010, section 5.1; what is masked becomes 0, the train mean of a normalized input."""

    name: Literal["dae"]
    mask_rate: float = Field(0.25, ge=0, lt=1)
    """Share of entries that are masked; a pixel is masked in all its channels."""
    noise_std: float = Field(0.0, ge=0)
    """Standard deviation of gaussian noise on every entry, in units of the train standard deviation."""
    emphasis: float = Field(1.0, ge=1)
    """How many times more a masked entry counts in the error than the rest (section 4.2)."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""

    @model_validator(mode="after")
    def _corrupts(self) -> Self:
        if self.mask_rate == 0 and self.noise_std == 0:
            raise ValueError("mask_rate and noise_std are both 0, so there is nothing to denoise")
        return self


def denoising_loss(reconstruction: Tensor, clean: Tensor, masked: Tensor, emphasis: float) -> Tensor:
    """Squared error (JMLR 2010, equations 4 and 9), averaged over a row's entries, then over rows.

    Args:
        reconstruction, clean: (B, ...) of one shape.
        masked: bool, broadcastable to it; those entries weigh `emphasis`, the others 1. Weights are normalized
            within each row, so that rows stay independent of each other.
    """
    dtype = torch.promote_types(clean.dtype, torch.float32)
    weight = torch.where(masked, emphasis, 1.0).to(dtype).expand_as(clean).flatten(1)
    error = (reconstruction.to(dtype) - clean.to(dtype)).square().flatten(1)
    return ((weight * error).sum(dim=1) / weight.sum(dim=1)).mean()


def corrupt(x: Tensor, keys: Tensor, mask_rate: float, noise_std: float) -> tuple[Tensor, Tensor]:
    """`x` (B, C, H, W) or (B, D) with noise and masked entries, drawn from `keys` (B,) alone.

    Returns:
        The corrupted input, and what was masked: bool (B, 1, H, W) or (B, D).
    """
    places = (len(x), 1, *x.shape[2:]) if x.ndim > 2 else tuple(x.shape)
    masked = draw(uniform, keys, "dae.mask", math.prod(places[1:]), x.dtype).view(places) < mask_rate
    if noise_std > 0:
        x = x + noise_std * draw(normal, keys, "dae.noise", math.prod(x.shape[1:]), x.dtype).view_as(x)
    return x.masked_fill(masked, 0.0), masked


class DAE(Method):
    """Backbone on the corrupted input, and a decoder from its pooled features."""

    # The sample itself, as in the papers: corruption is the pretext here, and the crops and colour changes of an
    # augmentation policy would be one more thing to reconstruct.
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))

    def __init__(self, config: DAEConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.decoder = decoder(self.num_features, input_shape, config.decoder_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the mean squared error to the clean input: 1 is as good as the train mean."""
        (clean,) = batch.views
        corrupted, masked = corrupt(clean, batch.keys, self.config.mask_rate, self.config.noise_std)
        reconstruction = self.decoder(self.backbone(corrupted))
        return {"loss": denoising_loss(reconstruction, clean, masked, self.config.emphasis)}


SPEC = MethodSpec(
    name="dae",
    config=DAEConfig,
    method=DAE,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="Stacked Denoising Autoencoders, Journal of Machine Learning Research 11 (2010), 3371-3408",
)
