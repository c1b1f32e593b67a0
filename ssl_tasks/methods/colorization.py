"""Colorization: say which colours a grey image had (arXiv 1603.08511).

pretrain: {method: {name: colorization, stride: 4}}
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, TrainStats, ViewSpec
from ssl_tasks.methods.heads import ConvDecoder

BIN = 10.0
"""Side of a bin of the (a, b) plane."""
NUM_NEAREST = 5
"""Bins that a colour is spread over (section 2.2)."""
SIGMA = 5.0
"""Deviation of the gaussian that does it, in units of a and b."""
CUBE_SIDE = 65
"""sRGB colours a side that are looked at for which bins there are: with 129 and 256 no bin more is found."""
MAX_PIXELS = 1 << 14
"""Whose distances to all bins are held at once."""
STATS_PIXELS = 1 << 20
"""Of train rows that the rarity of colours is counted on."""
# IEC 61966-2-1: linear sRGB to XYZ; and its white, D65
RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
WHITE = (0.95047, 1.0, 1.08883)


class ColorizationConfig(MethodConfig):
    """Defaults of the paper, sections 2.1 and 2.2."""

    name: Literal["colorization"]
    stride: int = Field(4, ge=1)
    """Pixels a side of a cell whose mean colour is predicted."""
    uniform_share: float = Field(0.5, gt=0, le=1)
    """Of the uniform distribution that is mixed into the colours' before their rarity is taken (lambda in equation
    4); 1 weighs all colours the same."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder."""


def srgb_to_lab(images_BCHW: Tensor) -> Tensor:
    """sRGB in 0..1 (..., 3, H, W) to CIE 1976 L*a*b* under D65 (CIE 15:2004): L in 0..100, a and b around 0."""
    with torch.autocast(images_BCHW.device.type, enabled=False):
        rgb = images_BCHW.to(torch.promote_types(images_BCHW.dtype, torch.float32))
        linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
        matrix = rgb.new_tensor(RGB_TO_XYZ) / rgb.new_tensor(WHITE)[:, None]
        xyz = torch.einsum("kc,...chw->...khw", matrix, linear)
        knee = 6 / 29
        f = torch.where(xyz > knee**3, xyz.clamp(min=knee**3) ** (1 / 3), xyz / (3 * knee**2) + 4 / 29)
        x, y, z = f.unbind(-3)
        return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


@functools.cache
def gamut_bins() -> Tensor:
    """(Q, 2) float32: centres (a, b) of the bins that some sRGB colour lies in, ascending.

    There are 261; the paper's list of 313 has bins beyond the gamut's border as well.
    """
    steps = torch.linspace(0, 1, CUBE_SIDE, dtype=torch.float64)
    cube = torch.cartesian_prod(steps, steps, steps).T[..., None]  # (3, colours, 1)
    bins: Tensor = torch.unique((srgb_to_lab(cube)[1:, :, 0].T / BIN).round(), dim=0) * BIN
    return bins.float()


@torch.no_grad()
def soft_encode(ab: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The `NUM_NEAREST` bins of each colour, nearest first, and their gaussian weights, which sum to 1 (section 2.2).

    Args:
        ab: (P, 2); bins: (Q, 2).

    Returns:
        (P, 5) int64 and (P, 5).
    """
    with torch.autocast(ab.device.type, enabled=False):
        found = [
            # not by a matrix product, in which differences of large squares lose their digits
            torch.cdist(part, bins, compute_mode="donot_use_mm_for_euclid_dist").topk(NUM_NEAREST, largest=False)
            for part in torch.split(ab, MAX_PIXELS)
        ]
    distances, nearest = (torch.cat(parts) for parts in zip(*found, strict=True))
    return nearest, (-distances.square() / (2 * SIGMA**2)).softmax(dim=1)


def rebalance(share: Tensor, uniform_share: float) -> Tensor:
    """Weights (Q,) of bins from their shares of train colours (Q,), 1 on average over these (equation 4)."""
    weights = 1.0 / ((1.0 - uniform_share) * share + uniform_share / len(share))
    return weights / (share * weights).sum()


def color_loss(logits: Tensor, nearest: Tensor, soft: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy to soft-encoded colours, weighted by the rarity of the nearest bin (equations 2 and 3), averaged.

    Args:
        logits: (P, Q); nearest, soft: (P, 5) of `soft_encode`; weights: (Q,).

    Returns:
        The loss, in float32 or wider, and the share of pixels whose nearest bin has the largest logit.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_shares = logits.to(dtype).log_softmax(dim=1).gather(1, nearest)
    own = nearest[:, 0]
    loss = -(weights.to(dtype)[own] * (soft.to(dtype) * log_shares).sum(dim=1)).mean()
    return loss, (logits.detach().argmax(dim=1) == own).float().mean()


def to_unit(normalization: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Scale and shift of each channel: input * scale + shift is 0 for black and 1 for white, as `to_input` had it."""
    mean, std = normalization["mean"], normalization["std"]
    scales = {"standard": (std, mean), "unit": ([1.0] * 3, [0.0] * 3), "symmetric": ([0.5] * 3, [0.5] * 3)}
    return scales[normalization["input"]]


class Colorization(Method):
    """Backbone on lightness alone, and a decoder from its pooled features to shares of colours at a coarse grid."""

    # The sample itself: a policy's changes of colour would be what is to be predicted, and its grey images have none.
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    bins: Tensor
    """(Q, 2), see `gamut_bins`."""
    weights: Tensor
    """(Q,), see `rebalance`."""
    scale: Tensor
    shift: Tensor
    """(3, 1, 1), see `to_unit`."""

    def __init__(self, config: ColorizationConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        channels, height, width = input_shape
        if channels != 3:
            raise RequestError(
                f"pretrain.method.name: colorization needs images of 3 channels, red, green and blue, and these have "
                f"{channels} (normalize.channels)"
            )
        self.grid = (max(1, height // config.stride), max(1, width // config.stride))
        self.register_buffer("bins", gamut_bins().clone(), persistent=False)
        self.register_buffer("weights", torch.ones(len(self.bins)))
        self.register_buffer("scale", torch.ones(3, 1, 1))
        self.register_buffer("shift", torch.zeros(3, 1, 1))
        self.decoder = ConvDecoder(self.num_features, (len(self.bins), *self.grid), config.decoder_width)

    def prepare(self, stats: TrainStats) -> None:
        """The way back to 0..1, and how rare each colour is.

        Raises:
            RequestError: the train rows are grey.
        """
        scale, shift = to_unit(stats.normalization)
        self.scale, self.shift = (self.scale.new_tensor(values).view(3, 1, 1) for values in (scale, shift))
        every = math.ceil(len(stats.sample) * math.prod(self.grid) / STATS_PIXELS)
        counts = torch.zeros(len(self.bins), dtype=torch.float64)
        for part in torch.split(stats.sample[::every], 256):
            nearest, soft = soft_encode(self._colors(self._lab(part)), self.bins)
            counts.index_add_(0, nearest.flatten(), soft.flatten().double())
        grey = soft_encode(torch.zeros(1, 2), self.bins)[0]
        if float(counts.sum() - counts[grey].sum()) == 0:
            raise RequestError("pretrain.method.name: colorization needs colours, and the train images are grey")
        self.weights = rebalance(counts / counts.sum(), self.config.uniform_share).to(self.weights)

    def _lab(self, images: Tensor) -> Tensor:
        return srgb_to_lab((images * self.scale + self.shift).clamp(0.0, 1.0))

    def _colors(self, lab: Tensor) -> Tensor:
        """(P, 2) mean a and b of all cells, image after image."""
        return functional.adaptive_avg_pool2d(lab[:, 1:], self.grid).permute(0, 2, 3, 1).reshape(-1, 2)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the weighted cross entropy over colours, and `color_accuracy`, the share of cells told right."""
        (view,) = batch.views
        lab = self._lab(view)
        # lightness as a grey image would come, so that the backbone's input later looks alike
        grey = ((lab[:, :1] / 100.0 - self.shift) / self.scale).to(view.dtype)
        logits = self.decoder(self.backbone(grey)).permute(0, 2, 3, 1).flatten(0, 2)
        loss, accuracy = color_loss(logits, *soft_encode(self._colors(lab), self.bins.to(lab.dtype)), self.weights)
        return {"loss": loss, "color_accuracy": accuracy}


SPEC = MethodSpec(
    name="colorization",
    config=ColorizationConfig,
    method=Colorization,
    modalities=("image",),
    family="prediction of what is hidden",
    paper="Colorful Image Colorization, arXiv 1603.08511",
)
