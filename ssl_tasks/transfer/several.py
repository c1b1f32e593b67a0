"""What the strategies that combine the embeddings by several encoders share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ssl_tasks.transfer.base import FloatArray, Prediction, Task
from ssl_tasks.transfer.strategies import linear_probe, ridge
from ssl_tasks.transfer.targets import REGRESSION


def of_each(task: Task) -> list[Task]:
    """The task on the embeddings by each encoder alone, the run's own first."""
    ends = np.cumsum(task.widths)[:-1]
    sides = zip(*(np.split(rows, ends, axis=1) for rows in (task.train, task.val, task.test)), strict=True)
    return [replace(task, train=train, val=val, test=test, widths=()) for train, val, test in sides]


def linear(task: Task) -> Prediction:
    """The strategy `linear_probe`, for numbers `ridge`."""
    return ridge.fit(task) if task.task == REGRESSION else linear_probe.fit(task)


@dataclass(frozen=True)
class Probed:
    """A linear probe on the embeddings by one encoder."""

    chosen: dict[str, float]
    """As its `Prediction`."""
    val: FloatArray
    """(V, K) scores of the val rows."""
    test: FloatArray
    """(T, K) of the test rows."""


def probe(task: Task) -> Probed:
    """`linear`, which scores the val rows as well."""
    found, count = linear(replace(task, test=np.concatenate([task.test, task.val]))), len(task.test)
    return Probed(found.chosen, found.scores[count:], found.scores[:count])


def probe_each(task: Task) -> list[Probed]:
    """`probe` on each encoder."""
    return [probe(alone) for alone in of_each(task)]
