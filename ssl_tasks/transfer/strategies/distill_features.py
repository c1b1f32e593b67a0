"""Feature distillation: a small student learns the encoder's features without a label, and is probed like it.

The hint of FitNets (Romero et al., arXiv 1412.6550, section 2.2, equation 3): a regressor on the student's features is
to give the teacher's, here those of its last layer, standardized by the train rows. All train rows teach, the learning
rate is the one whose student does so best on val, and `linear_probe` is fitted to the student's features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ssl_tasks.transfer.base import Context, FloatArray, IntArray, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.heads import linear, width_of
from ssl_tasks.transfer.networks.students import check, new_student, size_of
from ssl_tasks.transfer.networks.training import Loss, Schedule, Start, Training, train
from ssl_tasks.transfer.networks.tuning import context_of
from ssl_tasks.transfer.strategies import linear_probe

if TYPE_CHECKING:
    from torch import Tensor, nn


def fit(task: Task) -> Prediction:
    """Teach a student, probe it, and score the test positions."""
    from torch import nn

    context = context_of(task)
    assert context.features is not None
    standardize = linear_probe.standardize(context.features[context.train])
    teacher = context.encoder().eval().requires_grad_(False)
    loss = _hint(teacher, context.features[context.train])

    def start() -> Start:
        student = new_student(context, task.seed)
        network = nn.Sequential(student, linear(width_of(student), width_of(teacher)))
        return Start(network, loss=loss, rows=(context.train, np.full(len(context.train), -1)))

    def error(trained: Training, positions: IntArray) -> float:
        assert context.features is not None
        outputs = trained.outputs(positions, trained.network)
        return float(np.square(outputs - standardize(context.features[positions])).mean())

    schedule = Schedule.of(context.options.scratch, context.options.scratch.steps)
    trained = train(task, schedule, start, lambda candidate: (-error(candidate, task.val),))
    found = _probe(task, context, trained)
    facts = {"learning_rate": trained.rate, "feature_error": error(trained, context.train)}
    return replace(found, chosen=found.chosen | facts | {"weights": size_of(_student(trained)) / size_of(teacher)})


def _hint(teacher: nn.Module, of_train: FloatArray) -> Loss:
    """Mean squared error between standardized features of the teacher and what the network gives."""
    import torch
    from torch.nn import functional as F

    standardize = linear_probe.standardize(of_train)
    shift = torch.from_numpy(of_train.mean(axis=0)).float()
    inverse = torch.from_numpy(standardize(of_train.mean(axis=0) + 1.0)).float()  # 0 where a feature is constant

    def loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        teacher.to(inputs.device)
        with torch.no_grad():
            hints = (teacher(inputs) - shift.to(inputs.device)) * inverse.to(inputs.device)
        return F.mse_loss(network(inputs), hints)

    return loss


def _student(trained: Training) -> nn.Module:
    return next(trained.network.children())


def _probe(task: Task, context: Context, trained: Training) -> Prediction:
    student = _student(trained)
    prepare = linear_probe.STRATEGY.prepare(trained.outputs(context.train, student))
    train_rows, test = (prepare(trained.outputs(rows, student)) for rows in (task.train, task.test))
    val = prepare(trained.outputs(task.val, student)) if len(task.val) else train_rows[:0]
    return linear_probe.fit(replace(task, train=train_rows, val=val, test=test))


STRATEGY = Strategy(
    "distill_features", "a probe of a small network taught its features", fit, needs="payload", seeded=True, check=check
)
