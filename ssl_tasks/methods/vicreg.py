"""VICReg: views agree, every feature keeps its variance, no two features covary (arXiv 2105.04906).

pretrain: {method: {name: vicreg}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import bn_mlp
from ssl_tasks.training.collectives import gather_with_grad, my_columns, world_size

EPSILON = 1e-4
TARGET_STD = 1.0


class VICRegConfig(MethodConfig):
    """Defaults of the paper, section 4.2, but for the expander's width."""

    name: Literal["vicreg"]
    invariance: float = Field(25.0, ge=0)
    variance: float = Field(25.0, ge=0)
    covariance: float = Field(1.0, ge=0)
    out_dim: int = Field(2048, ge=2)
    """Of the expander, all three layers: 8,192 in the paper, on ImageNet."""


def vicreg_terms(z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    """The three terms of algorithm 1, unweighted; variance and covariance are sums over both views.

    Variance and covariance are those of all ranks' rows, of the columns that this rank takes over: work and
    memory are shared, and the mean of the ranks' terms, and of their gradients, is the whole batch's.

    Args:
        z1, z2: (B, D) embeddings of the two views of this rank's rows; every rank brings the same B.

    Returns:
        `invariance` (mean squared difference, over rows and features as in algorithm 1, where equation 5 sums over
        features), `variance` and `covariance`, in float32 or wider.
    """
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (z1, z2))
        variance, covariance = zip(*(_spread(gather_with_grad(z)) for z in (z1, z2)), strict=True)
        return {
            "invariance": functional.mse_loss(z1, z2),
            "variance": sum(variance) * world_size(),
            "covariance": sum(covariance) * world_size(),
        }


def _spread(z_ND: Tensor) -> tuple[Tensor, Tensor]:
    """This rank's part of the hinge on the standard deviation (eq. 1, 2) and of the squared covariances (eq. 3, 4)."""
    num_rows, num_features = z_ND.shape
    centred = z_ND - z_ND.mean(dim=0)
    mine = my_columns(num_features)
    block = centred[:, mine]
    covariance = block.T @ centred / (num_rows - 1)  # (D / ranks, D)
    own = covariance.diagonal(offset=mine.start)
    hinge = functional.relu(TARGET_STD - torch.sqrt(own + EPSILON)).sum() / num_features
    return hinge, (covariance.square().sum() - own.square().sum()) / num_features


class VICReg(Method):
    """Backbone, expander and the three terms."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    couples_batch: ClassVar[bool] = True
    least_rows: ClassVar[int] = 3

    def __init__(self, config: VICRegConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        width = config.out_dim
        self.expander = bn_mlp(self.num_features, width, width, width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss` (equation 6), and its three terms without their weights."""
        z1, z2 = (self.expander(self.backbone(view)) for view in batch.views)
        terms = vicreg_terms(z1, z2)
        loss = sum(getattr(self.config, name) * term for name, term in terms.items())
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}


SPEC = MethodSpec(
    name="vicreg",
    config=VICRegConfig,
    method=VICReg,
    modalities=("image",),
    family="redundancy reduction",
    paper="VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, arXiv 2105.04906",
)
