"""The least that any classifier should beat: every row gets the class shares of the labelled train rows."""

from __future__ import annotations

import numpy as np

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.tables import MAJORITY


def fit(task: Task) -> Prediction:
    """The shares; the most frequent class is predicted, of equal ones the first."""
    shares = np.bincount(task.labels, minlength=task.num_classes) / len(task.labels)
    return Prediction(np.tile(shares, (len(task.test), 1)))


STRATEGY = Strategy(MAJORITY, "always the most frequent class", fit, needs="payload")
"""A baseline beside the others; no recipe lists it."""
