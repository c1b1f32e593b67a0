"""The least that any fit should beat: every row gets the class shares, or the mean, of the labelled train rows."""

from __future__ import annotations

import numpy as np

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.dense import fit_majority
from ssl_tasks.transfer.tables import MAJORITY
from ssl_tasks.transfer.targets import CLASSIFICATION, DENSE


def fit(task: Task) -> Prediction:
    """The shares; the most frequent class is predicted, of equal ones the first. Of numbers the mean."""
    if task.task in DENSE:
        return fit_majority(task)
    if task.task == CLASSIFICATION:
        shares = np.bincount(task.labels, minlength=task.num_classes) / len(task.labels)
    else:
        shares = task.labels.reshape(len(task.labels), task.num_classes).mean(axis=0)
    return Prediction(np.tile(shares, (len(task.test), 1)))


STRATEGY = Strategy(MAJORITY, "always the most frequent class", fit, needs="payload", tasks=ALL_FITTED | DENSE)
"""A baseline beside the others; no recipe lists it."""
