"""The uniform soup: the mean of the weights of all fine-tuned networks (`soup`), good ones and bad ones."""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.soup import Kettle, check, ingredients, serve


def fit(task: Task) -> Prediction:
    """Fine-tune all and average them."""
    made = ingredients(task)
    return serve(task, Kettle(task, made), range(len(made)), made)


STRATEGY = Strategy(
    "uniform_soup",
    "a uniform soup of fine-tuned networks",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    encoders="any",
    counterpart="best_tuned",
    seeded=True,
    check=check,
)
