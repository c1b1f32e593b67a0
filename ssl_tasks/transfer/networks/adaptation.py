"""Networks that are fine-tuned on source labels under a penalty on how far the target's features lie from them.

What `deep_coral`, `mmd` and `dann` share. A batch holds labelled source rows and as many target rows; the loss is the
cross-entropy of the first plus the penalty. The learning rate is chosen on val rows of the source.

Batch norms see each domain's rows by themselves, in training and afterwards, as in `adabn`: normalized together, the
rows of one domain would be moved by the other's, and a penalty would weigh what no single domain looks like. From
MNIST to USPS that was the difference between a loss and a gain on the target (tests/benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_tasks.norms import sample, settle
from ssl_tasks.transfer.gaps import gap
from ssl_tasks.transfer.networks.heads import linear, width_of
from ssl_tasks.transfer.networks.students import UNKNOWN
from ssl_tasks.transfer.networks.training import Schedule, Start, Training, predict, train
from ssl_tasks.transfer.networks.tuning import after, context_of, domains_of, schedule_of

if TYPE_CHECKING:
    from ssl_tasks.transfer.base import Domains, IntArray, Prediction, Task

Penalty = Callable[["Classifier", Tensor, Tensor], Tensor]
"""Of a network and its features of source (S, D) and target (T, D) rows, to a scalar."""


class Classifier(nn.Module):
    """Encoder and head; the critic tells domains apart, where there is one, and takes no part in the logits."""

    def __init__(self, encoder: nn.Module, num_classes: int, critic: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.head, self.critic = encoder, linear(width_of(encoder), num_classes), critic

    def forward(self, inputs: Tensor) -> Tensor:
        """Input to logits (B, K)."""
        logits: Tensor = self.head(self.encoder(inputs))
        return logits


def both_layers(distance: Callable[[Tensor, Tensor], Tensor], weight: float) -> Penalty:
    """`weight` times the distance between the domains' features plus that between their logits."""

    def penalty(network: Classifier, source_SD: Tensor, target_TD: Tensor) -> Tensor:
        logits = distance(network.head(source_SD), network.head(target_TD))
        return weight * (distance(source_SD, target_TD) + logits)

    return penalty


def adapt(
    task: Task,
    penalty: Penalty,
    critic: Callable[[int], nn.Module] | None = None,
    before_step: Callable[[int], None] | None = None,
    schedule: Schedule | None = None,
) -> Prediction:
    """Train encoder and head, and the critic with them.

    Args:
        critic: from the width of the features.
        before_step: as in `Start`.
        schedule: where it is not that of section `transfer.tune`.
    """
    context = context_of(task)
    domains = domains_of(context)

    def start() -> Start:
        encoder = context.encoder()
        network = Classifier(encoder, task.num_classes, critic(width_of(encoder)) if critic else None)
        return Start(network, loss=penalized(penalty), target=domains.target, before_step=before_step)

    def merit(candidate: Training) -> tuple[float, ...]:
        normalized_by(candidate, domains.source)
        return task.val_score(candidate.scores(task.val))

    trained = train(task, schedule or schedule_of(context), start, merit)
    normalized_by(trained, domains.source)
    return by_domain(task, trained, domains)


def normalized_by(trained: Training, rows: IntArray) -> None:
    """Give batch norms the statistics of these rows."""
    settle(trained.network, trained.inputs, sample(rows), trained.schedule.batch_size)


def by_domain(task: Task, trained: Training, domains: Domains) -> Prediction:
    """What a network that was trained says, source rows under the statistics that it has and others under the target's.

    The gap afterwards is that between the first part's features under the same.
    """
    encoder = next(trained.network.children())
    found = predict(task, trained)
    of_source, of_target = domains.held_out
    apart = trained.outputs(of_source, encoder)
    normalized_by(trained, domains.target)
    scores, there = found.scores.copy(), ~np.isin(task.test, domains.of_source)
    if there.any():
        scores[there] = trained.scores(task.test[there])
    return replace(found, scores=scores, chosen=found.chosen | after(gap(apart, trained.outputs(of_target, encoder))))


def penalized(penalty: Penalty) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The loss of a batch (B, ...) whose target rows have the label -1."""

    def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(network, Classifier)
        known = labels != UNKNOWN
        source, target = network.encoder(inputs[known]), network.encoder(inputs[~known])
        return F.cross_entropy(network.head(source), labels[known]) + penalty(network, source, target)

    return loss
