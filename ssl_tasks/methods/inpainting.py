"""Inpainting: paint what was cut out of an image (context encoders, arXiv 1604.07379).

pretrain: {method: {name: inpainting, hole: center, adversarial_weight: 0.0}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.adversarial import AdversarialMethod, taken_for_real_loss, told_apart_loss
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import ConvDecoder
from ssl_tasks.methods.pieces import integers

DISCRIMINATOR = "discriminator"


class InpaintingConfig(MethodConfig):
    """Defaults of the paper, sections 3.2, 3.3 and 4; what is cut out becomes 0, the train mean of an input."""

    name: Literal["inpainting"]
    hole: Literal["random", "center"] = "random"
    """Blocks at random places, or one in the middle, to whose border features would get used (section 3.3)."""
    area: float = Field(0.25, gt=0, lt=1)
    """Share of the image that is cut out; of random blocks, which may overlap, at most so much."""
    num_blocks: int = Field(4, ge=1)
    """Random blocks that share the area."""
    overlap: float = Field(7 / 128, ge=0, lt=0.5)
    """Width of the border around the hole that is to be painted as well though it is seen, as a share of the shorter
    side, rounded up to pixels."""
    overlap_weight: float = Field(10.0, ge=0)
    """How many times more an entry of that border counts in the error."""
    adversarial_weight: float = Field(0.001, ge=0, lt=1)
    """Of what a discriminator says, the error has the rest (equation 3); it takes steps of its own, with the
    recipe's optimizer. With 0 there is none, as in the paper's own features."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the decoder, and of the discriminator's first layer."""


def block_sides(sides: tuple[int, int], share: float) -> tuple[int, int]:
    """Height and width in pixels of a block with this share of the image and its shape."""
    return max(1, round(sides[0] * math.sqrt(share))), max(1, round(sides[1] * math.sqrt(share)))


def holes(keys: Tensor, sides: tuple[int, int], config: InpaintingConfig) -> Tensor:
    """Where each image is cut out: bool (B, 1, *sides).

    Raises:
        RequestError: nothing would be left of an image.
    """
    random = config.hole == "random"
    count = config.num_blocks if random else 1
    block = block_sides(sides, config.area / count)
    if block == sides:
        raise RequestError(f"pretrain.method.area: {config.area:g} leaves nothing of {sides[1]} x {sides[0]} px")
    inside = []
    for side, length, name in zip(sides, block, "yx", strict=True):
        free = side - length
        start = (
            integers(keys, f"inpainting.{name}", count, free + 1)
            if random
            else keys.new_full((len(keys), 1), free // 2)
        )
        offset = torch.arange(side, device=keys.device) - start[..., None]  # (B, count, side)
        inside.append((offset >= 0) & (offset < length))
    return (inside[0][..., :, None] & inside[1][..., None, :]).any(dim=1, keepdim=True)


def entry_weights(hole: Tensor, border: int, border_weight: float) -> Tensor:
    """(B, 1, H, W) float32: 1 in the hole, `border_weight` up to `border` pixels around it, 0 elsewhere."""
    inner = hole.float()
    outer = functional.max_pool2d(inner, 2 * border + 1, stride=1, padding=border)
    return inner + border_weight * (outer - inner)


def reconstruction_loss(reconstruction: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    """Squared error where `weight` (B, 1, H, W) is not 0 (equation 1), its weighted mean over a row, then over rows."""
    dtype = torch.promote_types(clean.dtype, torch.float32)
    weight = weight.to(dtype).expand_as(clean).flatten(1)
    error = (reconstruction.to(dtype) - clean.to(dtype)).square().flatten(1)
    return ((weight * error).sum(dim=1) / weight.sum(dim=1)).mean()


class Discriminator(nn.Module):
    """Logits (B,) that images (B, C, H, W) are as they were: strided convolutions (arXiv 1511.06434).

    Without batch norm, so that an image is judged by itself.
    """

    def __init__(self, input_shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        channels, height, width_px = input_shape
        layers: list[nn.Module] = []
        for number in range(max(1, round(math.log2(min(height, width_px) / 4)))):
            wider = width * 2 ** min(number, 3)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            channels, height, width_px = wider, math.ceil(height / 2), math.ceil(width_px / 2)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width_px, 1))

    def forward(self, images: Tensor) -> Tensor:
        """In float32 or wider."""
        logits: Tensor = self.layers(images)[:, 0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class Inpainting(AdversarialMethod):
    """Backbone on the image with its hole, a decoder from its pooled features, and a discriminator."""

    # The sample itself, as for the denoising autoencoder: what an augmentation policy does to colours would be one
    # more thing to paint.
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    phases: ClassVar[tuple[str, ...]] = ("main",)
    discriminating: ClassVar[tuple[str, ...]] = (DISCRIMINATOR,)

    def __init__(self, config: InpaintingConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        channels, height, width = input_shape
        holes(torch.zeros(1, dtype=torch.int64), (height, width), config)
        self.border = math.ceil(config.overlap * min(height, width) - 1e-9)
        self.decoder = ConvDecoder(self.num_features, (channels, height, width), config.decoder_width)
        if config.adversarial_weight > 0:
            self.discriminator = Discriminator(input_shape, config.decoder_width)
            self.phases = ("main", DISCRIMINATOR)  # type: ignore[misc]  # here it depends on an option

    def _paint(self, clean: Tensor, hole: Tensor) -> Tensor:
        painted: Tensor = self.decoder(self.backbone(clean.masked_fill(hole, 0.0)))
        return painted

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Main: `loss` and its parts, `reconstruction` (1 is as good as the train mean) and `adversarial`.

        Discriminator: `loss`, and `accuracy`, the share of images, whole and painted, that it tells.
        """
        (clean,) = batch.views
        hole = holes(batch.keys, (clean.shape[2], clean.shape[3]), self.config)
        if phase == DISCRIMINATOR:
            with torch.no_grad():
                completed = torch.where(hole, self._paint(clean, hole).to(clean.dtype), clean)
            real, painted = self.discriminator(torch.cat([clean, completed])).chunk(2)
            told = torch.cat([real > 0, painted < 0]).float().mean()
            return {"loss": told_apart_loss(real, painted), "accuracy": told}
        painted = self._paint(clean, hole)
        weight = entry_weights(hole, self.border, self.config.overlap_weight)
        loss = reconstruction_loss(painted, clean, weight)
        if DISCRIMINATOR not in self.phases:
            return {"loss": loss}
        # -log D as in the paper's code: log (1 - D) of equation 2 has hardly a gradient where D is right
        verdict = self.discriminator(torch.where(hole, painted.to(clean.dtype), clean))
        adversarial = taken_for_real_loss(verdict)
        share = self.config.adversarial_weight
        return {
            "loss": (1.0 - share) * loss + share * adversarial,
            "reconstruction": loss.detach(),
            "adversarial": adversarial.detach(),
        }


SPEC = MethodSpec(
    name="inpainting",
    config=InpaintingConfig,
    method=Inpainting,
    modalities=("image",),
    family="prediction of what is hidden",
    paper="Context Encoders: Feature Learning by Inpainting, arXiv 1604.07379",
)
