"""A linear probe on each encoder, and of them the one that does best on val: what combining several has to beat.

Of equal ones, and where val has no labels, the first is taken: the run's own.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.several import probe_each
from ssl_tasks.transfer.strategies.linear_probe import standardize


def fit(task: Task) -> Prediction:
    """The best encoder's probe; `encoder` is its place, 0 for the run's own."""
    probes = probe_each(task)
    place = max(range(len(probes)), key=lambda place: task.val_score(probes[place].val)) if len(task.val_labels) else 0
    return Prediction(probes[place].test, {"encoder": float(place), **probes[place].chosen})


STRATEGY = Strategy(
    "best_encoder",
    "a linear probe on the encoder that is best on val",
    fit,
    prepare=standardize,
    tasks=ALL_FITTED,
    encoders="several",
)
