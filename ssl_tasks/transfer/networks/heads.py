"""Linear heads on a backbone: input -> features (B, D) -> logits (B, K)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ssl_tasks.transfer.base import FloatArray


def linear(num_inputs: int, num_outputs: int) -> nn.Linear:
    """A layer that gives 0 for everything."""
    from torch import nn

    # drawn by no generator: torch's global one may be seeding another fit's backbone at this moment
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs)  # type: ignore[no-untyped-call]  # as torch has it
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def width_of(backbone: nn.Module) -> int:
    """Of its features."""
    return int(backbone.num_features)  # type: ignore[arg-type]  # an int by contract


def with_head(backbone: nn.Module, num_classes: int) -> nn.Sequential:
    """`backbone` and a head that finds all classes equally likely."""
    from torch import nn

    return nn.Sequential(backbone, linear(width_of(backbone), num_classes))


def fill(head: nn.Module, weight_KD: FloatArray, bias_K: FloatArray) -> None:
    """Give a linear head these weights."""
    import torch
    from torch import nn

    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight_KD))
        head.bias.copy_(torch.from_numpy(bias_K))
