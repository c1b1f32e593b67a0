"""The features of all encoders side by side, and a linear probe on them.

Each encoder's features are standardized by all train rows, so that none counts for more by its scale; C is chosen on
val, as in `linear_probe`.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.linear_probe import fit as fit_probe
from ssl_tasks.transfer.linear_probe import standardize


def fit(task: Task) -> Prediction:
    """A linear probe on rows that hold the features of all encoders."""
    return fit_probe(task)


STRATEGY = Strategy(
    "concatenate",
    "a linear probe on the features of all encoders",
    fit,
    prepare=standardize,
    encoders="several",
    counterpart="best_encoder",
)
