"""The features of all encoders side by side, and a linear probe on them.

Each encoder's features are standardized by all train rows, so that none counts for more by its scale; C is chosen on
val, as in `linear_probe`. For numbers the probe is `ridge`.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.several import linear
from ssl_tasks.transfer.strategies.linear_probe import standardize


def fit(task: Task) -> Prediction:
    """A linear probe on rows that hold the features of all encoders."""
    return linear(task)


STRATEGY = Strategy(
    "concatenate",
    "a linear probe on the features of all encoders",
    fit,
    prepare=standardize,
    tasks=ALL_FITTED,
    encoders="several",
    counterpart="best_encoder",
)
