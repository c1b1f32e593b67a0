"""Of the fine-tuned networks that a soup is made of, the one that does best on val: what a soup has to beat.

Where val has no labels it is that of the run's own encoder and the middle learning rate.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.soup import check, ingredients, middle
from ssl_tasks.transfer.networks.training import predict
from ssl_tasks.transfer.networks.tuning import context_of


def fit(task: Task) -> Prediction:
    """Fine-tune all, and take one; `encoder` is its encoder's place, 0 for the run's own."""
    if not len(task.val_labels):
        return predict(task, middle(task).trained, encoder=0.0)
    made = ingredients(task)
    per_encoder = len(made) // len(context_of(task).encoders())
    place = max(range(len(made)), key=lambda place: made[place].val)
    return predict(task, made[place].trained, encoder=float(place // per_encoder))


STRATEGY = Strategy(
    "best_tuned",
    "the fine-tuned network that is best on val",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    encoders="any",
    seeded=True,
    check=check,
)
