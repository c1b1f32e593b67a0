"""AdamW without `torch.optim`, whose first optimizer imports torch's compiler: 7 s, for a baseline on a table.

(For images timm has imported it by then.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as `torch.optim.AdamW`."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], weight_decay: float, scales: Sequence[float] | None = None
    ) -> None:
        """Parameters that need no gradient now are never moved.

        Args:
            scales: each parameter's share of the learning rate, 1 where not given.
        """
        given = list(parameters)
        pairs = list(zip(given, scales or [1.0] * len(given), strict=True))
        self.parameters = [parameter for parameter, _ in pairs if parameter.requires_grad]
        self.scales = [scale for parameter, scale in pairs if parameter.requires_grad]
        self.weight_decay = weight_decay
        self.counts = [0] * len(self.parameters)
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters along their gradients and forget these; one without a gradient stays as it is."""
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            self.counts[index] += 1
            self._move(parameter, parameter.grad, index, rate * self.scales[index])
            parameter.grad = None

    def _move(self, parameter: nn.Parameter, grad: torch.Tensor, index: int, rate: float) -> None:
        mean, square, count = self.means[index], self.squares[index], self.counts[index]
        mean.lerp_(grad, 1 - BETA1)
        square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        parameter.mul_(1 - rate * self.weight_decay)
        scale = square.sqrt().div_(math.sqrt(1 - BETA2**count)).add_(EPSILON)
        parameter.addcdiv_(mean, scale, value=-rate / (1 - BETA1**count))
