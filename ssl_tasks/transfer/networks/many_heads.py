"""A backbone with a linear head for every kind of target, and their losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_tasks.transfer.joint import Target
from ssl_tasks.transfer.networks.heads import linear, width_of
from ssl_tasks.transfer.networks.weighting import Weighting
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL

SHORTCUT = "downsample"
"""What timm calls the branch around a block, which it registers after the block."""


class ManyHeads(nn.Module):
    """Input to the outputs of the first target's head; `all_outputs` gives those of all."""

    def __init__(self, backbone: nn.Module, targets: Sequence[Target], weighting: Weighting) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(linear(width_of(backbone), target.num_outputs) for target in targets)
        self.weighting = weighting
        self.names = [target.name for target in targets]
        self.widths = [target.values.shape[1] for target in targets]
        *_, self.last_shared = (
            name
            for name, weights in backbone.named_parameters()
            if weights.ndim > 1 and SHORTCUT not in name.split(".")
        )
        """Name of the last weights that all targets share, of a residual network those of its main branch."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, K) of what is predicted."""
        outputs: Tensor = self.heads[0](self.backbone(inputs))
        return outputs

    def all_outputs(self, inputs: Tensor) -> list[Tensor]:
        """(B, num_outputs) of each head."""
        features = self.backbone(inputs)
        return [head(features) for head in self.heads]

    def loss(self, inputs: Tensor, table: Tensor) -> Tensor:
        """The losses of all heads, weighted.

        Args:
            table: (B, columns) the values of all targets side by side.
        """
        targets = torch.split(table, self.widths, dim=1)
        outputs = self.all_outputs(inputs)
        losses = [loss_of(*each) for each in zip(self.names, outputs, targets, strict=True)]
        known = [bool(target.isfinite().any()) for target in targets]
        total: Tensor = self.weighting(torch.stack(losses), known, self.backbone.get_parameter(self.last_shared))
        return total


def loss_of(name: str, outputs: Tensor, values: Tensor) -> Tensor:
    """Mean over the rows that have the target: cross-entropy, of several classes binary and its mean over them, or the
    squared error; 0 where no row has it.

    Args:
        outputs: (B, num_outputs).
        values: (B, C) as `Target.values`.
    """
    known = values[:, 0].isfinite()
    outputs, values = outputs[known], values[known]
    if not len(values):
        return outputs.sum()
    if name == CLASSIFICATION:
        return F.cross_entropy(outputs, values[:, 0].long())
    if name == MULTI_LABEL:
        return F.binary_cross_entropy_with_logits(outputs, values.to(outputs.dtype))
    return F.mse_loss(outputs, values.to(outputs.dtype))
