"""The domain classifier of `dann`, and the layer that turns its gradient round."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_tasks.transfer.networks.heads import linear


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse(rows: Tensor, strength: float) -> Tensor:
    """`rows` as they are, through which a gradient comes back times -strength."""
    reversed_: Tensor = _Reverse.apply(rows, strength)
    return reversed_


def make_critic(widths: Sequence[int], seed: int) -> nn.Module:
    """(B, widths[0]) to a logit (B, 1) through hidden layers of the other widths; weights drawn by He's rule."""
    layers = [linear(inputs, outputs) for inputs, outputs in itertools.pairwise([*widths, 1])]
    generator = torch.Generator().manual_seed(seed)  # the global one may be at work for another fit
    with torch.no_grad():
        for layer in layers:
            layer.weight.normal_(0.0, math.sqrt(2.0 / layer.in_features), generator=generator)
    first, *others = layers
    return nn.Sequential(first, *(part for layer in others for part in (nn.ReLU(), layer)))


def domain_loss(critic: nn.Module, source_SD: Tensor, target_TD: Tensor, strength: float) -> Tensor:
    """Sum of the critic's mean cross-entropy of source (0) and target (1) rows, reversed towards the features."""
    losses = [
        F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, domain))
        for domain, rows in ((0.0, source_SD), (1.0, target_TD))
        for logits in [critic(reverse(rows, strength))]
    ]
    return torch.stack(losses).sum()
