"""MoCo v3: two views find each other among the batch's, seen by a momentum encoder (arXiv 2104.02057).

pretrain: {method: {name: moco_v3, temperature: 0.2}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.contrast import batch_info_nce
from ssl_tasks.methods.heads import bn_mlp
from ssl_tasks.methods.teachers import Teacher, cosine_momentum


class MoCoV3Config(MethodConfig):
    """Defaults of the paper, section 5 (for ViTs; its ResNet-50 takes a temperature of 1)."""

    name: Literal["moco_v3"]
    temperature: float = Field(0.2, gt=0)
    momentum: float = Field(0.99, ge=0, lt=1)
    """Of the key encoder at the start; it climbs to 1 along a cosine."""
    hidden_dim: int = Field(4096, ge=1)
    out_dim: int = Field(256, ge=1)
    fixed_patch_projection: bool = True
    """The patch projection of a ViT stays as it was at the start, against dips in training (section 4.3)."""


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """2 * temperature * InfoNCE of queries among all ranks' keys (equation 1 and algorithm 1), and its accuracy.

    Args:
        queries, keys: (B, D), not normalized; row i of both is one image, and the keys take no gradient.
    """
    loss, accuracy = batch_info_nce(queries, keys.detach(), temperature)
    return 2.0 * temperature * loss, accuracy


class MoCoV3(Method):
    """Backbone, projector and predictor for queries, a momentum encoder of the first two for keys."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    couples_batch: ClassVar[bool] = True
    least_rows: ClassVar[int] = 3

    def __init__(self, config: MoCoV3Config, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        hidden, out = config.hidden_dim, config.out_dim
        patches = getattr(getattr(backbone, "patch_embed", None), "proj", None)
        if config.fixed_patch_projection and isinstance(patches, nn.Module):
            patches.requires_grad_(False)
        self.projector = bn_mlp(self.num_features, hidden, hidden, out, last="plain norm")
        self.predictor = bn_mlp(out, hidden, out, last="plain norm")
        self.key_encoder = Teacher(nn.Sequential(self.backbone, self.projector))

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the sum of both directions; `contrast_accuracy`: how often the own key is the nearest of all."""
        # each view on its own: its batch norms see one view, as in the paper's code
        keys = [self.key_encoder(view) for view in batch.views]
        queries = [self.predictor(self.projector(self.backbone(view))) for view in batch.views]
        pairs = zip(queries, reversed(keys), strict=True)
        losses, accuracies = zip(*(contrast(q, k, self.config.temperature) for q, k in pairs), strict=True)
        return {"loss": torch.stack(losses).sum(), "contrast_accuracy": torch.stack(accuracies).mean()}

    def after_step(self, progress: float) -> None:
        """The key encoder follows."""
        momentum = cosine_momentum(self.config.momentum, progress)
        self.key_encoder.follow(nn.Sequential(self.backbone, self.projector), momentum)


SPEC = MethodSpec(
    name="moco_v3",
    config=MoCoV3Config,
    method=MoCoV3,
    modalities=("image",),
    family="contrastive",
    paper="An Empirical Study of Training Self-Supervised Vision Transformers, arXiv 2104.02057",
)
