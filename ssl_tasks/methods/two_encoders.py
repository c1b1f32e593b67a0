"""Two encoders: the target encoder's view of an image is regressed from another view (joint embedding; LeCun, A Path
Towards Autonomous Machine Intelligence, version 0.9.2, 2022, sections 4.3 and 4.5).

pretrain: {method: {name: two_encoders}}
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import bn_mlp, projection_std
from ssl_tasks.methods.teachers import Teacher, cosine_momentum


class TwoEncodersConfig(MethodConfig):
    """The defaults keep it alive by BYOL's means (arXiv 2006.07733): predictor, stopped gradient, moving average.

    The plain form, {predictor: false, stop_gradient: false, momentum: null}, collapses: all images get one
    projection, whose distance to itself is 0.
    """

    name: Literal["two_encoders"]
    predictor: bool = True
    """A network between the input's projection and the target's; without one the projections are compared."""
    stop_gradient: bool = True
    """Whether the target stays as it is in a step."""
    momentum: float | None = Field(0.99, ge=0, lt=1)
    """Of the target encoder, a moving average of the input encoder, at the start; it climbs to 1 along a cosine. null
    makes the input encoder the target encoder too."""
    hidden_dim: int = Field(2048, ge=1)
    out_dim: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _target_takes_a_gradient(self) -> Self:
        if self.momentum is not None and not self.stop_gradient:
            raise ValueError("stop_gradient is false, but a moving average takes no gradient; set momentum to null too")
        return self


class TwoEncoders(Method):
    """Backbone and projector as input encoder, a target encoder, and a predictor between them."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    least_rows: ClassVar[int] = 3

    def __init__(self, config: TwoEncodersConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        # no norm at the end, which would keep the deviation of a collapsed projection up
        self.projector = bn_mlp(self.num_features, config.hidden_dim, config.out_dim)
        out, hidden = config.out_dim, config.hidden_dim
        self.predictor: nn.Module = bn_mlp(out, hidden, out) if config.predictor else nn.Identity()
        encoder = nn.Sequential(self.backbone, self.projector)
        self.teacher = Teacher(encoder) if config.momentum is not None else None

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the mean of both directions, and `projection_std`."""
        # each view on its own: its batch norms see one view
        projections = [self.projector(self.backbone(view)) for view in batch.views]
        targets = projections if self.teacher is None else [self.teacher(view) for view in batch.views]
        if self.config.stop_gradient:
            targets = [target.detach() for target in targets]
        predicted = [self.predictor(projection) for projection in projections]
        losses = [squared_error(p, z) for p, z in zip(predicted, reversed(targets), strict=True)]
        return {"loss": torch.stack(losses).mean(), "projection_std": projection_std(torch.cat(projections))}

    def after_step(self, progress: float) -> None:
        """The target encoder follows."""
        if self.teacher is not None:
            momentum = cosine_momentum(self.config.momentum, progress)
            self.teacher.follow(nn.Sequential(self.backbone, self.projector), momentum)


SPEC = MethodSpec(
    name="two_encoders",
    config=TwoEncodersConfig,
    method=TwoEncoders,
    modalities=("image",),
    family="siamese without negatives",
    paper="A Path Towards Autonomous Machine Intelligence, version 0.9.2 (2022), openreview.net/forum?id=BZ5a1r-kVsf",
)
