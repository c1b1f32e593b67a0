"""Retrieval: the labelled train rows, ranked for each test row by cosine similarity; nothing is fitted.

The gallery is the label budget: a larger one has more right rows to find, and more wrong ones beside them. What comes
first is scored by class (`retrieved`).
"""

from __future__ import annotations

import numpy as np

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.retrieved import measure
from ssl_tasks.transfer.strategies.knn import unit_length
from ssl_tasks.transfer.targets import RETRIEVAL


def fit(task: Task) -> Prediction:
    """Rank when it is asked; the classes of the test rows are told to the ranking that is made without them."""
    return Prediction(
        np.zeros((len(task.test), 1)),
        {"gallery": float(len(task.labels))},
        judged=lambda wanted: measure(task.train, task.labels, task.test, wanted),
    )


STRATEGY = Strategy(
    "retrieval", "a ranking by cosine similarity", fit, prepare=unit_length, tasks=frozenset({RETRIEVAL})
)
