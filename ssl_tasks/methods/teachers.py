"""Momentum teachers: a copy of the student that follows it slowly and takes no gradient (MoCo, BYOL, DINO)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from ssl_tasks.training.optim import average_into


class Teacher(nn.Module):
    """A moving average of `student`; its batch norms use the statistics of their own batch, as the papers' do."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """As the student's, without a graph."""
        return self.network(*inputs)

    def follow(self, student: nn.Module, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student, parameters only."""
        average_into(self.network, student, momentum)


def cosine_momentum(base: float, progress: float) -> float:
    """From `base` at progress 0 to 1 at progress 1 along half a cosine (BYOL, arXiv 2006.07733, section 3.2)."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
