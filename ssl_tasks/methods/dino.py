"""DINO: a student says of every crop what a momentum teacher says of the global ones (arXiv 2104.14294).

pretrain: {method: {name: dino, num_local: 6}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import DirectionHead
from ssl_tasks.methods.multicrop import NUM_GLOBAL, across_views, embed_crops, multi_crop
from ssl_tasks.methods.teachers import Teacher, cosine_momentum
from ssl_tasks.training.collectives import gather_with_grad


class DINOConfig(MethodConfig):
    """Defaults of the paper, section 3.2 and appendix C, but for the number of outputs."""

    name: Literal["dino"]
    num_local: int = Field(8, ge=0)
    """Small crops (the policy `local`), seen by the student alone."""
    out_dim: int = Field(4096, ge=2)
    """The paper's 65,536 are for ImageNet: with ten crops of 256 images their logits alone take 0.7 GB."""
    hidden_dim: int = Field(2048, ge=1)
    bottleneck_dim: int = Field(256, ge=1)
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: float = Field(0.07, gt=0)
    """Lower than the student's: it sharpens the targets, against collapse to the uniform distribution."""
    teacher_temperature_start: float = Field(0.04, gt=0)
    teacher_warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the teacher's temperature goes from its start to its end."""
    momentum: float = Field(0.996, ge=0, lt=1)
    """Of the teacher at the start; it climbs to 1 along a cosine."""
    center_momentum: float = Field(0.9, ge=0, le=1)
    """Of the mean that is taken from the teacher's outputs, against collapse to one output; 1 keeps it at 0."""
    freeze_last_layer: float = Field(0.01, ge=0, lt=1)
    """Share of the steps before the last layer starts to learn (the paper's first epoch of 100)."""


def dino_loss(
    student: Tensor, teacher: Tensor, center: Tensor, student_temperature: float, teacher_temperature: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the teacher's distributions with the student's of other views (equations 1 to 3, algorithm 1).

    Args:
        student: (V, B, K) outputs, the global views first.
        teacher: (2, B, K) outputs of the global views; takes no gradient.
        center: (K,), taken from the teacher's outputs.

    Returns:
        The loss, a mean over pairs of views and rows in float32 or wider, and the mean entropy of the teacher's
        distributions: 0 where each says one output, log K where they are uniform.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        log_q = torch.log_softmax((teacher.detach().to(dtype) - center.to(dtype)) / teacher_temperature, dim=2)
        q = log_q.exp()
        return across_views(q, student.to(dtype) / student_temperature), -(q * log_q).sum(dim=2).mean()


class DINO(Method):
    """Backbone and head, their teacher, and the center of its outputs."""

    views: ClassVar[ViewSpec] = multi_crop(8)
    center: Tensor
    """(out_dim,) moving mean of the teacher's outputs over all ranks' rows."""
    progress: Tensor
    """() share of the training that is done."""

    def __init__(self, config: DINOConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.head = DirectionHead(self.num_features, config.hidden_dim, config.bottleneck_dim, config.out_dim)
        self.teacher = Teacher(nn.Sequential(self.backbone, self.head))
        self.register_buffer("center", torch.zeros(config.out_dim))
        self.register_buffer("progress", torch.zeros(()))
        self.fresh: list[Tensor] = []
        """Means of the teacher's outputs in this step, not yet in the center."""

    @classmethod
    def views_for(cls, config: DINOConfig) -> ViewSpec:
        """Two global views and the local ones."""
        return multi_crop(config.num_local)

    def chance(self) -> dict[str, float]:
        """A teacher that says the same of all images."""
        return {"teacher_entropy": math.log(self.config.out_dim)}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, log `out_dim` at chance, and `teacher_entropy`, which goes to 0 or log `out_dim` in a collapse."""
        config = self.config
        teacher: Tensor = embed_crops(self.teacher, batch.views[:NUM_GLOBAL])
        self.fresh = [*self.fresh, teacher.to(self.center).mean(dim=(0, 1))]
        features = embed_crops(self.backbone, batch.views)
        student = self.head(features, learns=self.progress >= config.freeze_last_layer)
        loss, entropy = dino_loss(student, teacher, self.center, config.student_temperature, self._temperature())
        return {"loss": loss, "teacher_entropy": entropy}

    def _temperature(self) -> Tensor:
        """() the teacher's, which climbs along a line."""
        config = self.config
        share = (self.progress / config.teacher_warmup).clamp(max=1.0) if config.teacher_warmup else 1.0
        start, end = config.teacher_temperature_start, config.teacher_temperature
        return torch.as_tensor(start + (end - start) * share, device=self.progress.device)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The teacher follows, and the center takes in this step's outputs of all ranks (equation 4)."""
        momentum = cosine_momentum(self.config.momentum, progress)
        self.teacher.follow(nn.Sequential(self.backbone, self.head), momentum)
        mean = gather_with_grad(torch.stack(self.fresh).mean(dim=0, keepdim=True)).mean(dim=0)
        self.center.lerp_(mean, 1.0 - self.config.center_momentum)
        self.progress.fill_(progress)
        self.fresh = []


SPEC = MethodSpec(
    name="dino",
    config=DINOConfig,
    method=DINO,
    modalities=("image",),
    family="siamese without negatives",
    paper="Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294",
)
