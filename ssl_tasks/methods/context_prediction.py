"""Context prediction: say where a patch lies around another one of the same image (arXiv 1505.05192).

pretrain: {method: {name: context_prediction, drop_colors: false}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import mlp
from ssl_tasks.methods.pieces import LEAST, as_input, cut, input_size, integers
from ssl_tasks.randomness import normal

PLACES = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Rows down and columns right of the first patch: the eight classes (figure 2)."""
NOISE = 0.01
"""Of what stands for a dropped colour, in standard deviations of the one that is left (section 3.1)."""
NOISE_ROWS = 64
"""Rows whose noise is drawn at once: mixing holds several int64 copies of it."""


class ContextPredictionConfig(MethodConfig):
    """Defaults of the paper, sections 3 and 3.1."""

    name: Literal["context_prediction"]
    gap: float = Field(0.5, ge=0, le=4)
    """Between two patches, in sides of a patch, so that edges do not run on."""
    jitter: float = Field(7 / 96, ge=0)
    """How far each patch is moved at random either way, in sides of a patch; rounded up, but no more than half the
    gap's pixels."""
    drop_colors: bool = True
    """Leave a patch one of its colours, drawn at random, and noise in place of the others: lenses colour edges by
    their place (chromatic aberration). Images that were shrunk to a few dozen pixels show none of it: there `false`
    keeps the colours."""
    patch_size: int | None = Field(None, ge=LEAST)
    """Pixels a side that patches are resized to for the backbone: half the image's where not set, at least 16; the
    image's own where the backbone takes no other."""
    hidden_dim: int = Field(4096, ge=1)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if 2 * self.jitter > self.gap:
            raise ValueError("jitter: patches would overlap where it is more than half of gap")
        return self


def layout(sides: tuple[int, int], gap: float, jitter: float) -> tuple[int, int, int]:
    """Pixels of the largest patch of which 3 x 3 fit into an image, of the gap and of the jitter.

    Raises:
        RequestError: not even patches of 2 pixels fit.
    """
    for patch in range(min(sides) // 3, LEAST - 1, -1):
        between = round(gap * patch)
        move = min(math.ceil(jitter * patch - 1e-9), between // 2)
        if 3 * patch + 2 * between + 2 * move <= min(sides):
            return patch, between, move
    raise RequestError(
        f"pretrain.method.gap: images of {sides[1]} x {sides[0]} px have no room for three patches of {LEAST} px in a "
        f"row with gaps of {gap:g} patches"
    )


def pairs(images_BCHW: Tensor, keys: Tensor, gap: float, jitter: float) -> tuple[Tensor, Tensor]:
    """Two patches of each image (B, 2, C, p, p) and the second's place (B,), a number of `PLACES`.

    The first is the middle one of 3 x 3 that lie somewhere in the image, so that it alone says nothing of the place.
    """
    sides = (images_BCHW.shape[2], images_BCHW.shape[3])
    patch, between, move = layout(sides, gap, jitter)
    place = integers(keys, "context_prediction.place", 1, len(PLACES))[:, 0]
    directions = torch.tensor(PLACES, device=keys.device)[place]  # (B, 2)
    starts = []
    for axis, (side, name) in enumerate(zip(sides, "yx", strict=True)):
        free = side - (3 * patch + 2 * between + 2 * move)
        corner = integers(keys, f"context_prediction.corner.{name}", 1, free + 1)
        moved = integers(keys, f"context_prediction.jitter.{name}", 2, 2 * move + 1)
        cell = torch.stack([torch.ones_like(place), 1 + directions[:, axis]], dim=1)  # (B, 2)
        starts.append(corner + cell * (patch + between) + moved)
    return cut(images_BCHW, starts[0], starts[1], (patch, patch)), place


def one_color(patches_BTCHW: Tensor, keys: Tensor) -> Tensor:
    """Every patch with one of its channels, and noise of `NOISE` in the others; a patch's channels have variance 1."""
    num_patches, num_channels = patches_BTCHW.shape[1:3]
    kept = functional.one_hot(integers(keys, "context_prediction.color", num_patches, num_channels), num_channels)
    count = math.prod(patches_BTCHW.shape[1:])
    dtype = torch.promote_types(patches_BTCHW.dtype, torch.float32)
    parts = [normal(part, "context_prediction.noise", count, dtype) for part in torch.split(keys, NOISE_ROWS)]
    noise = NOISE * torch.cat(parts).view_as(patches_BTCHW)
    return torch.where(kept[..., None, None].bool(), patches_BTCHW, noise.to(patches_BTCHW.dtype))


class ContextPrediction(Method):
    """Backbone on both patches, and a classifier of eight places on both features."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment",))

    def __init__(self, config: ContextPredictionConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        layout((input_shape[1], input_shape[2]), config.gap, config.jitter)
        self.size = input_size(backbone, input_shape, config.patch_size, "patch_size")
        self.classifier = mlp(2 * self.num_features, config.hidden_dim, config.hidden_dim, len(PLACES))

    def chance(self) -> dict[str, float]:
        """Of eight places."""
        return {"loss": math.log(len(PLACES))}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the cross entropy over places (log 8 = 2.079 at chance), and `place_accuracy`."""
        (view,) = batch.views
        patches, place = pairs(view, batch.keys, self.config.gap, self.config.jitter)
        inputs = as_input(patches, self.size)
        if self.config.drop_colors:
            inputs = one_color(inputs.view(len(view), 2, *inputs.shape[1:]), batch.keys).flatten(0, 1)
        logits = self.classifier(self.backbone(inputs).view(len(view), -1))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        accuracy = (logits.detach().argmax(dim=1) == place).float().mean()
        return {"loss": functional.cross_entropy(logits, place), "place_accuracy": accuracy}


SPEC = MethodSpec(
    name="context_prediction",
    config=ContextPredictionConfig,
    method=ContextPrediction,
    modalities=("image",),
    family="prediction of a place",
    paper="Unsupervised Visual Representation Learning by Context Prediction, arXiv 1505.05192",
)
