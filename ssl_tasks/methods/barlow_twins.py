"""Barlow Twins: the cross-correlation of two views' features becomes the identity (arXiv 2103.03230).

pretrain: {method: {name: barlow_twins, redundancy: 0.005}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import bn_mlp
from ssl_tasks.training.collectives import gather_with_grad, my_columns, world_size


class BarlowTwinsConfig(MethodConfig):
    """Defaults of the paper, section 2.2, but for the projector's width."""

    name: Literal["barlow_twins"]
    redundancy: float = Field(0.005, gt=0)
    """lambda: weight of the terms off the diagonal."""
    out_dim: int = Field(2048, ge=2)
    """Of the projector, all three layers: 8,192 in the paper, on ImageNet, where wider is better (figure 4). Its 134
    million weights would be most of the work for small images."""


def barlow_twins_loss(z1: Tensor, z2: Tensor, redundancy: float) -> tuple[Tensor, Tensor]:
    """sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2 (equations 1 and 2).

    C is the correlation over all ranks' rows. Each rank computes some rows of C, so that work and memory are
    shared; the mean of the ranks' losses, and of their gradients, is the whole batch's.

    Args:
        z1, z2: (B, D) projections of the two views of this rank's rows; every rank brings the same B.

    Returns:
        This rank's part of the loss, in float32 or wider, and of the mean of the diagonal, 1 where views agree; both
        times the number of ranks.
    """
    with torch.autocast(z1.device.type, enabled=False):
        first, second = (
            _standardized(gather_with_grad(z.to(torch.promote_types(z.dtype, torch.float32)))) for z in (z1, z2)
        )
        mine = my_columns(z1.shape[1])
        correlation = first[:, mine].T @ second / len(first)  # (D / ranks, D)
        diagonal = correlation.diagonal(offset=mine.start)
        invariance = (1.0 - diagonal).square().sum()
        others = correlation.square().sum() - diagonal.square().sum()
        loss = (invariance + redundancy * others) * world_size()
        return loss, diagonal.detach().sum() * world_size() / z1.shape[1]


def _standardized(z_ND: Tensor) -> Tensor:
    var, mean = torch.var_mean(z_ND, dim=0, correction=0)
    return (z_ND - mean) * torch.rsqrt(var + 1e-5)  # the paper's code: a batch norm, and its epsilon


class BarlowTwins(Method):
    """Backbone, projector and the redundancy-reduction loss."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    couples_batch: ClassVar[bool] = True
    least_rows: ClassVar[int] = 3

    def __init__(self, config: BarlowTwinsConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        width = config.out_dim
        self.projector = bn_mlp(self.num_features, width, width, width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, and `view_correlation`, the mean of the diagonal."""
        z1, z2 = (self.projector(self.backbone(view)) for view in batch.views)
        loss, correlation = barlow_twins_loss(z1, z2, self.config.redundancy)
        return {"loss": loss, "view_correlation": correlation}


SPEC = MethodSpec(
    name="barlow_twins",
    config=BarlowTwinsConfig,
    method=BarlowTwins,
    modalities=("image",),
    family="redundancy reduction",
    paper="Barlow Twins: Self-Supervised Learning via Redundancy Reduction, arXiv 2103.03230",
)
