"""What the strategies that combine the embeddings by several encoders share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssl_tasks.transfer import linear_probe
from ssl_tasks.transfer.base import FloatArray, Task
from ssl_tasks.transfer.classical import from_probabilities


def of_each(task: Task) -> list[Task]:
    """The task on the embeddings by each encoder alone, the run's own first."""
    ends = np.cumsum(task.widths)[:-1]
    sides = zip(*(np.split(rows, ends, axis=1) for rows in (task.train, task.val, task.test)), strict=True)
    return [replace(task, train=train, val=val, test=test, widths=()) for train, val, test in sides]


@dataclass(frozen=True)
class Probed:
    """A linear probe on the embeddings by one encoder."""

    strength: float
    """The C that did best on val."""
    val: FloatArray
    """(V, K) class probabilities of the val rows."""
    test: FloatArray
    """(T, K) of the test rows."""


def probe_each(task: Task) -> list[Probed]:
    """The strategy `linear_probe` on each encoder."""
    return [probe(alone) for alone in of_each(task)]


def probe(task: Task) -> Probed:
    """The strategy `linear_probe`."""
    model, strength, _ = linear_probe.choose(task)
    scores = from_probabilities(model, task.num_classes).scores
    val = scores(task.val) if len(task.val) else np.zeros((0, task.num_classes))
    return Probed(strength, val, scores(task.test))
