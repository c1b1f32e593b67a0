"""Adapters of low rank in the attention of a transformer; `lora` says which paper they are from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from ssl_tasks.transfer.options import TuneConfig

QKV = ("attn.qkv", "self_attn.qkv")
"""Endings of the names of the layers that give queries, keys and values at once, in this order."""


class LowRank(nn.Module):
    """W (3 D, D_in) to W with an update of low rank in its first and last third, the queries and values."""

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0] // 3, weight.shape[1]
        bound = 1.0 / math.sqrt(inputs)
        self.scale = alpha / rank
        self.a_q = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.b_q = nn.Parameter(torch.zeros(outputs, rank))
        self.a_v = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator))
        self.b_v = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        queries, values = self.b_q @ self.a_q, self.b_v @ self.a_v
        return weight + self.scale * torch.cat([queries, torch.zeros_like(queries), values])


def attentions(backbone: nn.Module) -> list[nn.Linear]:
    """The layers that LoRA adapts."""
    named = backbone.named_modules()
    return [module for name, module in named if name.endswith(QKV) and isinstance(module, nn.Linear)]


def adapt(backbone: nn.Module, tune: TuneConfig, seed: int) -> None:
    """Freeze `backbone` and put adapters into its attention, in place; it gives what it gave."""
    backbone.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for layer in attentions(backbone):
        low_rank = LowRank(layer.weight, tune.lora_rank, tune.lora_alpha, generator)
        parametrize.register_parametrization(layer, "weight", low_rank)
