"""SCARF: a table's row and its randomly corrupted copy agree, against all other rows (arXiv 2106.15147).

pretrain: {method: {name: scarf, corruption_rate: 0.6}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, TrainStats, ViewSpec, length_from_checkpoint
from ssl_tasks.methods.contrast import batch_info_nce
from ssl_tasks.methods.heads import mlp
from ssl_tasks.randomness import uniform
from ssl_tasks.training.collectives import world_size


class ScarfConfig(MethodConfig):
    """Defaults of the paper, section 4."""

    name: Literal["scarf"]
    corruption_rate: float = Field(0.6, gt=0, lt=1)
    """Share of a row's columns that are replaced."""
    temperature: float = Field(1.0, gt=0)
    hidden_dim: int = Field(256, ge=1)
    """Width of the two-layer head, hidden and out."""


def info_nce(anchors: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of rows and their corrupted copies (algorithm 1), this rank's anchors against all ranks' keys.

    The paper averages over candidates inside the logarithm, so a loss of 0 is chance and -log N perfect.

    Args:
        anchors, keys: (B, D) projections of this rank's rows; every rank brings the same B.

    Returns:
        The mean loss over this rank's anchors, in float32 or wider, and the share of anchors whose own copy is
        the nearest of all.
    """
    loss, accuracy = batch_info_nce(anchors, keys, temperature)
    return loss - math.log(world_size() * len(anchors)), accuracy


def corrupt(x: Tensor, keys: Tensor, marginal: Tensor, num_corrupted: int) -> Tensor:
    """`x` (B, D) with `num_corrupted` columns of each row, chosen evenly, drawn anew from `marginal` (M, D).

    Each column's value comes from a train row of its own, so columns are independent; all is drawn from `keys`.
    """
    num_columns = x.shape[1]
    place = uniform(keys, "scarf.columns", num_columns, torch.float64).argsort(dim=1).argsort(dim=1)
    donor = (uniform(keys, "scarf.donors", num_columns, torch.float64) * len(marginal)).long()
    replacement = marginal.to(x.dtype).gather(0, donor)
    return torch.where(place < num_corrupted, replacement, x)


class Scarf(Method):
    """Backbone, head and InfoNCE between a row and its corrupted copy."""

    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    couples_batch: ClassVar[bool] = True
    marginal: Tensor
    """(M, D) normalized train rows, set by `prepare`."""

    def __init__(self, config: ScarfConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        (num_columns,) = input_shape
        self.temperature = config.temperature
        self.num_corrupted = math.floor(config.corruption_rate * num_columns + 1e-9)
        if self.num_corrupted == 0:
            raise RequestError(
                f"pretrain.method.corruption_rate: {config.corruption_rate} of {num_columns} columns is not one whole "
                f"column; at least {math.ceil(1000 / num_columns) / 1000:g} is needed"
            )
        self.head = mlp(self.num_features, config.hidden_dim, config.hidden_dim)
        self.register_buffer("marginal", torch.empty(0, num_columns))
        length_from_checkpoint(self, "marginal")

    def prepare(self, stats: TrainStats) -> None:
        """Keep the train sample: its columns are the empirical marginals."""
        self.marginal = stats.sample.to(self.marginal)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, and `contrast_accuracy`: how often a row's own copy is the nearest of all candidates."""
        (x,) = batch.views
        corrupted = corrupt(x, batch.keys, self.marginal, self.num_corrupted)
        anchors, keys = self.head(self.backbone(torch.cat([x, corrupted]))).chunk(2)
        loss, accuracy = info_nce(anchors, keys, self.temperature)
        return {"loss": loss, "contrast_accuracy": accuracy}


SPEC = MethodSpec(
    name="scarf",
    config=ScarfConfig,
    method=Scarf,
    modalities=("tabular",),
    family="contrastive",
    paper="SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption, arXiv 2106.15147",
)
