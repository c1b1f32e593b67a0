"""What the strategies that go on training the encoder share: section `transfer.tune`, and a head on the encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import Context, Domains, Prediction, Task
from ssl_tasks.transfer.gaps import gap
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.training import Schedule, Start, Training, predict, train

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


def domains_of(context: Context) -> Domains:
    """Those that every strategy that `adapts` is given."""
    assert context.domains is not None, "it adapts to a target and needs domains"
    return context.domains


def after(measured: Mapping[str, float]) -> dict[str, float]:
    """A gap among the facts of a fit: the one that its own features have."""
    return {f"{name}_after": value for name, value in measured.items()}


def tune(task: Task, start: Callable[[nn.Sequential], Start], schedule: Schedule | None = None) -> Prediction:
    """Train the encoder with a head on `task.train` positions and score the test positions.

    Args:
        start: from (encoder, head) to what of it is trained, and how; called for each learning rate.
        schedule: where it is not that of section `tune`.
    """
    context = context_of(task)
    schedule = schedule or schedule_of(context)
    trained = train(task, schedule, lambda: start(with_head(context.encoder(), task.num_classes)))
    weights = list(trained.network.parameters())
    moved = {id(weight) for weight in trained.optimizer.parameters}
    share = sum(w.numel() for w in weights if id(w) in moved) / sum(w.numel() for w in weights)
    return predict(task, trained, trained_share=share, **gap_after(context, trained))


def gap_after(context: Context, trained: Training) -> dict[str, float]:
    """How far the domains lie apart in the network's first part; nothing where there is one domain."""
    if context.domains is None:
        return {}
    encoder = next(trained.network.children())
    source, target = (trained.outputs(rows, encoder) for rows in context.domains.held_out)
    return after(gap(source, target))
