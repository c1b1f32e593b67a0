"""AdamW without `torch.optim`, whose first optimizer imports torch's compiler: 7 s, for a baseline on a table.

(For images timm has imported it by then.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as `torch.optim.AdamW`."""

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.weight_decay = weight_decay
        self.count = 0
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters along their gradients and forget these."""
        self.count += 1
        correction = math.sqrt(1 - BETA2**self.count)
        for parameter, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            if parameter.grad is None:
                continue
            mean.lerp_(parameter.grad, 1 - BETA1)
            square.mul_(BETA2).addcmul_(parameter.grad, parameter.grad, value=1 - BETA2)
            parameter.mul_(1 - rate * self.weight_decay)
            scale = square.sqrt().div_(correction).add_(EPSILON)
            parameter.addcdiv_(mean, scale, value=-rate / (1 - BETA1**self.count))
            parameter.grad = None
