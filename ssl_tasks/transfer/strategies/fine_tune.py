"""Full fine-tuning: a head that knows nothing on the encoder, and all weights are trained.

On the untrained network this would be training from scratch, which is what it is compared with.
"""

from __future__ import annotations

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import tune


def fit(task: Task) -> Prediction:
    """Train everything."""
    return tune(task, Start)


STRATEGY = Strategy(
    "fine_tune",
    "fine-tuning",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    untrained="from_scratch",
    seeded=True,
)
