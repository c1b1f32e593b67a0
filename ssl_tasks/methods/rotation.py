"""Rotation: say by which quarter turn an image was rotated (RotNet, arXiv 1803.07728).

pretrain: {method: {name: rotation}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec

NUM_TURNS = 4


class RotationConfig(MethodConfig):
    """The method has no hyper-parameters; all four turns of an image are in the batch (section 3.1)."""

    name: Literal["rotation"]


def turned(images_BCHW: Tensor) -> Tensor:
    """(4 B, C, H, W), H = W: all images as they are, then all by 90 degrees, by 180, by 270."""
    return torch.cat([images_BCHW.rot90(turns, (2, 3)) for turns in range(NUM_TURNS)])


class Rotation(Method):
    """Backbone and a linear classifier of four turns."""

    # pictures that are random crops of the recipe's policy, which must not itself rotate by quarter turns
    views: ClassVar[ViewSpec] = ViewSpec(("augment",))

    def __init__(self, config: RotationConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        if input_shape[1] != input_shape[2]:
            raise RequestError(f"pretrain.method: rotation needs square images, and these are {input_shape[1:]}")
        self.classifier = nn.Linear(self.num_features, NUM_TURNS)

    def chance(self) -> dict[str, float]:
        """Of four turns."""
        return {"loss": math.log(NUM_TURNS)}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the cross entropy over turns (equation 3; log 4 = 1.386 at chance), and `turn_accuracy`."""
        (view,) = batch.views
        logits = self.classifier(self.backbone(turned(view)))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        turns = torch.arange(NUM_TURNS, device=view.device).repeat_interleave(len(view))
        accuracy = (logits.detach().argmax(dim=1) == turns).float().mean()
        return {"loss": functional.cross_entropy(logits, turns), "turn_accuracy": accuracy}


SPEC = MethodSpec(
    name="rotation",
    config=RotationConfig,
    method=Rotation,
    modalities=("image",),
    family="prediction of a transformation",
    paper="Unsupervised Representation Learning by Predicting Image Rotations, arXiv 1803.07728",
)
