"""Knowledge distillation: a small student learns the probabilities that the encoder's linear probe gives.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531, section 2): the divergence
between softmaxes at temperature T, times T^2 so that its gradients keep their size, beside the cross-entropy of the
labels. As in SimCLRv2 (arXiv 2006.10029, section 2) the rows without labels teach as well: all train rows are used.
Teacher and student see the same view (Beyer et al., arXiv 2106.05237).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.networks.heads import fill, with_head
from ssl_tasks.transfer.networks.students import UNKNOWN, all_rows, check, new_student, size_of
from ssl_tasks.transfer.networks.training import Loss, Schedule, Start, predict, train
from ssl_tasks.transfer.networks.tuning import context_of
from ssl_tasks.transfer.probed import fit_probe

if TYPE_CHECKING:
    from torch import Tensor, nn


def distillation(student_BK: Tensor, teacher_BK: Tensor, labels_B: Tensor, temperature: float, weight: float) -> Tensor:
    """weight T^2 KL(teacher || student) at temperature T + (1 - weight) cross-entropy.

    Args:
        student_BK, teacher_BK: logits.
        labels_B: -1 where there is none; the cross-entropy is the mean over the others, 0 where there are no others.
    """
    from torch.nn import functional as F

    soft = F.kl_div(
        (student_BK / temperature).log_softmax(dim=1),
        (teacher_BK / temperature).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
    known = labels_B != UNKNOWN
    hard = F.cross_entropy(student_BK[known], labels_B[known], reduction="sum") / known.sum().clamp(min=1)
    return weight * temperature**2 * soft + (1.0 - weight) * hard


def fit(task: Task) -> Prediction:
    """Teach a student and score the test positions with it."""
    context = context_of(task)
    options, probe = context.options.distill, fit_probe(task, context)
    teacher = with_head(context.encoder(), task.num_classes)
    fill(teacher[1], probe.weight, probe.bias)
    loss = _taught_by(teacher.eval().requires_grad_(False), options.temperature, options.weight)
    trained = train(
        task,
        Schedule.of(context.options.scratch, context.options.scratch.steps),
        lambda: Start(
            with_head(new_student(context, task.seed), task.num_classes), loss=loss, rows=all_rows(task, context)
        ),
    )
    assert context.features is not None
    found = predict(task, trained, C=probe.strength, weights=size_of(trained.network) / size_of(teacher))
    same = found.scores.argmax(axis=1) == probe.scores(context.features[task.test]).argmax(axis=1)
    return Prediction(found.scores, found.chosen | {"agreement": float(same.mean())})


def _taught_by(teacher: nn.Module, temperature: float, weight: float) -> Loss:
    import torch

    def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        teacher.to(inputs.device)
        with torch.no_grad():
            soft = teacher(inputs)
        return distillation(network(inputs), soft, labels, temperature, weight)

    return loss


STRATEGY = Strategy(
    "distill_logits", "distillation into a small network", fit, needs="payload", seeded=True, check=check
)
