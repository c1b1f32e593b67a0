"""What the strategies that go on training the encoder share: section `transfer.tune`, and a head on the encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import Context, Prediction, Task
from ssl_tasks.transfer.heads import with_head
from ssl_tasks.transfer.training import Schedule, Start, predict, train

if TYPE_CHECKING:
    from torch import nn


def context_of(task: Task) -> Context:
    """The context that every strategy of `needs="payload"` is given."""
    assert task.context is not None, "it trains a network and needs a context"
    return task.context


def schedule_of(context: Context) -> Schedule:
    """That of section `transfer.tune`."""
    options = context.options
    return Schedule.of(options.tune, options.tune.steps or options.scratch.steps)


def tune(task: Task, start: Callable[[nn.Sequential], Start]) -> Prediction:
    """Train the encoder with a head on `task.train` positions and score the test positions.

    Args:
        start: from (encoder, head) to what of it is trained, and how; called for each learning rate.
    """
    context = context_of(task)
    trained = train(task, schedule_of(context), lambda: start(with_head(context.encoder(), task.num_classes)))
    weights = list(trained.network.parameters())
    moved = {id(weight) for weight in trained.optimizer.parameters}
    share = sum(w.numel() for w in weights if id(w) in moved) / sum(w.numel() for w in weights)
    return predict(task, trained, trained_share=share)
