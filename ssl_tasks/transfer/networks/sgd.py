"""Stochastic gradient descent with momentum, beside `adamw` and like it without `torch.optim`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Sgd:
    """Heavy-ball momentum and coupled weight decay, as `torch.optim.SGD` without dampening."""

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float, momentum: float) -> None:
        """Parameters that need no gradient now are never moved."""
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.weight_decay, self.momentum = weight_decay, momentum
        self.velocities = [torch.zeros_like(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters along their velocities and forget the gradients; one without a gradient stays."""
        for parameter, velocity in zip(self.parameters, self.velocities, strict=True):
            if parameter.grad is None:
                continue
            velocity.mul_(self.momentum).add_(parameter.grad).add_(parameter, alpha=self.weight_decay)
            parameter.add_(velocity, alpha=-rate)
            parameter.grad = None
