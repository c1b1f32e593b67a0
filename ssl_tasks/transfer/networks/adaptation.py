"""Networks that are fine-tuned on source labels under a penalty on how far the target's features lie from them.

What `deep_coral`, `mmd` and `dann` share. A batch holds labelled source rows and as many target rows; the loss is the
cross-entropy of the first plus the penalty. The learning rate is chosen on val rows of the source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_tasks.transfer.gaps import gap
from ssl_tasks.transfer.networks.heads import linear, width_of
from ssl_tasks.transfer.networks.students import UNKNOWN
from ssl_tasks.transfer.networks.training import Start, predict, train
from ssl_tasks.transfer.networks.tuning import after, context_of, domains_of, schedule_of

if TYPE_CHECKING:
    from ssl_tasks.transfer.base import Prediction, Task

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
) -> Prediction:
    """Train encoder and head, and the critic with them.

    Args:
        critic: from the width of the features.
        before_step: as in `Start`.
    """
    context = context_of(task)
    domains = domains_of(context)

    def start() -> Start:
        encoder = context.encoder()
        network = Classifier(encoder, task.num_classes, critic(width_of(encoder)) if critic else None)
        return Start(network, loss=_penalized(penalty), target=domains.target, before_step=before_step)

    trained = train(task, schedule_of(context), start)
    network = trained.network
    assert isinstance(network, Classifier)
    source, target = (trained.outputs(rows, network.encoder) for rows in domains.held_out)
    return predict(task, trained, **after(gap(source, target)))


def _penalized(penalty: Penalty) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        assert isinstance(network, Classifier)
        features, known = network.encoder(inputs), labels != UNKNOWN
        of_labels = F.cross_entropy(network.head(features[known]), labels[known])
        return of_labels + penalty(network, features[known], features[~known])

    return loss
