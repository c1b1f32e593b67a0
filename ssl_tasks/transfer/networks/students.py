"""Small networks that learn from the encoder: what the strategies that distill share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import Blueprint, Context, IntArray, Task

if TYPE_CHECKING:
    from torch import nn

    from ssl_tasks.transfer.options import Options

KEY = "transfer.distill.student"
UNKNOWN = -1


def build_student(options: Options, *, seed: int = 0, **like: Any) -> nn.Module:
    """The backbone that `distill.student` names.

    Args:
        like: what `build_backbone` is told of the encoder's inputs.

    Raises:
        RequestError: there is no such network, or it cannot take these inputs.
    """
    from ssl_tasks.backbones import build_backbone

    assert options.distill.student is not None, "no student is named"
    try:
        return build_backbone(options.distill.student, seed=seed, **like)
    except RequestError as error:
        raise RequestError(str(error).replace("pretrain.backbone", KEY)) from error


def check(blueprint: Blueprint) -> None:
    """Refuse no student, and one that is no smaller than the encoder."""
    if blueprint.student is None:
        raise RequestError(
            f"{KEY}: name the small network that learns from the encoder: test_efficientnet or another of timm's for "
            "images, mlp:<width>x<depth> for tables"
        )
    small, large = size_of(blueprint.student), size_of(blueprint.backbone)
    if small >= large:
        raise RequestError(
            f"{KEY}: {blueprint.options.distill.student} has {small:,} weights, and the encoder {large:,}; name a "
            "smaller one, such as test_efficientnet for images"
        )


def size_of(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def new_student(context: Context, seed: int) -> nn.Module:
    """A student with weights drawn from the seed."""
    assert context.student is not None, "no student is named"
    return context.student(seed)


def all_rows(task: Task, context: Context) -> tuple[IntArray, IntArray]:
    """Positions of all train rows and their labels, `UNKNOWN` for those that the budget does not hold."""
    labels = np.full(len(context.train), UNKNOWN, dtype=np.int64)
    place = np.searchsorted(context.train, task.train)
    assert np.array_equal(context.train[place], task.train), "a task's rows are train rows, and these ascend"
    labels[place] = task.labels
    return context.train, labels
