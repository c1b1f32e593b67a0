"""The greedy soup: fine-tuned networks (`soup`) are averaged from the best down, as long as val does not suffer.

Where val has no labels it is the fine-tuned network of the run's own encoder and the middle learning rate.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.soup import Kettle, check, greedy, ingredients, serve
from ssl_tasks.transfer.strategies.best_tuned import fit as fit_best


def fit(task: Task) -> Prediction:
    """Fine-tune all and average those that val asks for."""
    if not len(task.val_labels):
        return fit_best(task)
    made = ingredients(task)
    kettle = Kettle(task, made)
    places = greedy([one.val for one in made], lambda some: task.val_score(kettle.scores(some, task.val)))
    return serve(task, kettle, places, made)


STRATEGY = Strategy(
    "greedy_soup",
    "a greedy soup of fine-tuned networks",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    encoders="any",
    counterpart="best_tuned",
    seeded=True,
    check=check,
)
