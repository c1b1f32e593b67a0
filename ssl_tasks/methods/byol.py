"""BYOL: predict the momentum teacher's view of an image from another view, without negatives (arXiv 2006.07733).

pretrain: {method: {name: byol, momentum: 0.996}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import bn_mlp, projection_std
from ssl_tasks.methods.teachers import Teacher, cosine_momentum


class BYOLConfig(MethodConfig):
    """Defaults of the paper, section 3.2; shorter runs than its 300 epochs want a lower momentum (table 5a)."""

    name: Literal["byol"]
    momentum: float = Field(0.996, ge=0, lt=1)
    """Of the teacher at the start; it climbs to 1 along a cosine."""
    hidden_dim: int = Field(4096, ge=1)
    out_dim: int = Field(256, ge=1)


def regression_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared distance of l2-normalized rows (equation 2), 2 - 2 cos, averaged over rows.

    Args:
        predicted, target: (B, D); the target takes no gradient.

    Returns:
        Between 0 (same directions) and 4, in float32 or wider.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    cosine = functional.cosine_similarity(predicted.to(dtype), target.detach().to(dtype), dim=1)
    return (2.0 - 2.0 * cosine).mean()


class BYOL(Method):
    """Backbone, projector and predictor against a teacher of the first two."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    least_rows: ClassVar[int] = 3

    def __init__(self, config: BYOLConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.projector = bn_mlp(self.num_features, config.hidden_dim, config.out_dim)
        self.predictor = bn_mlp(config.out_dim, config.hidden_dim, config.out_dim)
        self.teacher = Teacher(nn.Sequential(self.backbone, self.projector))

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the sum over both directions, 4 at chance, and `projection_std`."""
        # each view on its own: its batch norms see one view, as in the paper's code
        targets = [self.teacher(view) for view in batch.views]
        projections = [self.projector(self.backbone(view)) for view in batch.views]
        first, second = (self.predictor(projection) for projection in projections)
        loss = regression_loss(first, targets[1]) + regression_loss(second, targets[0])
        return {"loss": loss, "projection_std": projection_std(torch.cat(projections))}

    def after_step(self, progress: float) -> None:
        """The teacher follows."""
        momentum = cosine_momentum(self.config.momentum, progress)
        self.teacher.follow(nn.Sequential(self.backbone, self.projector), momentum)


SPEC = MethodSpec(
    name="byol",
    config=BYOLConfig,
    method=BYOL,
    modalities=("image",),
    family="siamese without negatives",
    paper="Bootstrap your own latent: A new approach to self-supervised Learning, arXiv 2006.07733",
)
