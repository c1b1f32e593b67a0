"""LP-FT: fine-tuning that starts from a linear probe's head in place of one that knows nothing.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution" (arXiv 2202.10054):
while a fresh head finds its way, the features are bent towards the few labelled rows; a head that is right already
leaves them. The probe is the strategy `linear_probe`, whose scores the network gives before its first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import ALL_FITTED, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.heads import fill
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, tune
from ssl_tasks.transfer.probed import Probe, fit_probe

if TYPE_CHECKING:
    from torch import nn


def fit(task: Task) -> Prediction:
    """Fit the probe, then train everything."""
    probe = fit_probe(task, context_of(task))
    return tune(task, lambda network: start(network, probe))


def start(network: nn.Sequential, probe: Probe) -> Start:
    """(encoder, head) with the probe for its head."""
    fill(network[1], probe.weight, probe.bias)
    return Start(network)


STRATEGY = Strategy(
    "lp_ft",
    "a linear probe, then fine-tuning",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    untrained="from_scratch",
    seeded=True,
)
