"""SimCLR: two views of an image agree, against all other images of the batch (arXiv 2002.05709).

pretrain: {method: {name: simclr, temperature: 0.1}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import bn_mlp
from ssl_tasks.training.collectives import gather_with_grad, rank


class SimCLRConfig(MethodConfig):
    """Defaults of the paper, section 2 and table 5."""

    name: Literal["simclr"]
    temperature: float = Field(0.1, gt=0)
    """Low punishes the hardest negatives most; the paper uses 0.1 on ImageNet and 0.5 on CIFAR-10."""
    hidden_dim: int | None = Field(None, ge=1)
    """Of the projection head; as wide as the features where not set, as in the paper."""
    out_dim: int = Field(128, ge=1)


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalized temperature-scaled cross entropy (equation 1 and algorithm 1).

    This rank's rows are the anchors and all ranks' rows the candidates, so that the mean of the ranks' losses,
    and of their gradients, is the whole batch's.

    Args:
        z1, z2: (B, D) projections of the two views of this rank's rows; every rank brings the same B.

    Returns:
        The mean loss over this rank's 2 B anchors, in float32 or wider, and the share of anchors whose positive
        is the nearest candidate.
    """
    num_rows = len(z1)
    views = torch.stack([z1, z2], dim=1)  # (B, 2, D)
    # bf16 has too few digits for a sum over thousands of exponentials
    with torch.autocast(z1.device.type, enabled=False):
        views = functional.normalize(views.to(torch.promote_types(z1.dtype, torch.float32)), dim=2)
        candidates = gather_with_grad(views)  # (N, 2, D), N rows on all ranks
        logits = views.flatten(0, 1) @ candidates.flatten(0, 1).T / temperature  # (2 B, 2 N)
        itself = 2 * num_rows * rank() + torch.arange(2 * num_rows, device=z1.device)
        positive = itself ^ 1  # the two views of a row stand side by side
        logits = logits.scatter(1, itself[:, None], -torch.inf)
        loss = functional.cross_entropy(logits, positive)
        return loss, (logits.detach().argmax(dim=1) == positive).float().mean()


class SimCLR(Method):
    """Backbone, projection head and NT-Xent."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    couples_batch: ClassVar[bool] = True
    least_rows: ClassVar[int] = 2

    def __init__(self, config: SimCLRConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.temperature = config.temperature
        # batch norm as in the paper's code
        self.head = bn_mlp(self.num_features, config.hidden_dim or self.num_features, config.out_dim, last="norm")

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, and `contrast_accuracy`: how often the other view is the nearest of all candidates."""
        z1, z2 = self.head(self.backbone(torch.cat(batch.views))).chunk(2)
        loss, accuracy = nt_xent(z1, z2, self.temperature)
        return {"loss": loss, "contrast_accuracy": accuracy}


SPEC = MethodSpec(
    name="simclr",
    config=SimCLRConfig,
    method=SimCLR,
    modalities=("image",),
    family="contrastive",
    paper="A Simple Framework for Contrastive Learning of Visual Representations, arXiv 2002.05709",
)
