"""The baseline without pretraining: the same architecture, trained on the same labelled rows from fresh weights.

It trains as the strategies that tune the encoder do (`training`), under its own section of options.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.dense import fit_scratch
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.training import Schedule, Start, predict, train
from ssl_tasks.transfer.networks.tuning import gap_after
from ssl_tasks.transfer.targets import DENSE


def fit(task: Task) -> Prediction:
    """Train a network on `task.train` positions and score the test positions."""
    if task.task in DENSE:
        return fit_scratch(task)
    context = task.context
    assert context is not None, "from_scratch needs a context"
    schedule = Schedule.of(context.options.scratch, context.options.scratch.steps)
    trained = train(task, schedule, lambda: Start(with_head(context.build(task.seed), task.num_classes)))
    return predict(task, trained, **gap_after(context, trained))


STRATEGY = Strategy(
    "from_scratch", "training from scratch", fit, needs="payload", tasks=ALL_FITTED | DENSE, seeded=True
)
