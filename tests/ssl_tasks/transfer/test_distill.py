from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import tests_digits as digits
import torch

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import Blueprint, Task
from ssl_tasks.transfer.networks.students import all_rows, build_student, check
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.probed import fit_probe
from ssl_tasks.transfer.strategies import distill_features, distill_logits
from ssl_tasks.transfer.strategies.distill_logits import distillation

LEARN = {"scratch": {"steps": 400, "learning_rates": [1e-2]}}


def naive(student: list[list[float]], teacher: list[list[float]], labels: list[int], t: float, w: float) -> float:
    """Hinton et al., section 2, row by row."""

    def softmax(row: list[float], at: float) -> list[float]:
        parts = [math.exp(value / at) for value in row]
        return [part / sum(parts) for part in parts]

    soft, hard, known = 0.0, 0.0, 0
    for ours, theirs, label in zip(student, teacher, labels, strict=True):
        p, q = softmax(theirs, t), softmax(ours, t)
        soft += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / len(labels)
        if label >= 0:
            hard, known = hard - math.log(softmax(ours, 1.0)[label]), known + 1
    return w * t * t * soft + (1 - w) * (hard / known if known else 0.0)


@pytest.mark.parametrize("labels", [[2, -1, 0, -1], [-1, -1, -1, -1], [1, 1, 0, 2]])
def test_the_loss_and_its_gradient_are_the_papers(labels: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    teacher = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    loss = distillation(student, teacher, torch.tensor(labels), 3.0, 0.7)
    loss.backward()
    given = student.detach().tolist()
    assert loss.item() == pytest.approx(naive(given, teacher.tolist(), labels, 3.0, 0.7), rel=1e-10)
    for row in range(4):
        for column in range(3):
            moved = [[*line] for line in given]
            values = []
            for step in (1e-5, -1e-5):
                moved[row][column] = given[row][column] + step
                values.append(naive(moved, teacher.tolist(), labels, 3.0, 0.7))
            assert student.grad[row, column].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-8)


def test_gradients_keep_their_size_at_any_temperature() -> None:
    """With T^2 the gradient tends to (s - t) / K as T grows (equation 4 of the paper, logits of mean zero)."""
    student = torch.tensor([[0.3, -0.1, -0.2]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[-0.4, 0.5, -0.1]], dtype=torch.float64)
    distillation(student, teacher, torch.tensor([-1]), 1e3, 1.0).backward()
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / 3, atol=1e-3, rtol=0)


def teacher_accuracy(task: Task) -> float:
    assert task.context is not None
    assert task.context.features is not None
    return digits.accuracy(fit_probe(task, task.context).scores(task.context.features[task.test]))


@pytest.mark.parametrize("strategy", [distill_logits, distill_features])
def test_a_student_of_unlabelled_rows_approaches_its_teacher(strategy: object) -> None:
    """A tenth of the weights and 60 labels; the student alone, on those labels, falls behind."""
    task = digits.task(digits.MLP, **LEARN)
    found = strategy.fit(task)  # type: ignore[attr-defined]
    alone = distill_logits.fit(digits.task(digits.MLP, **LEARN, distill={"weight": 0.0}))
    assert found.chosen["weights"] < 0.3
    assert digits.accuracy(found.scores) > teacher_accuracy(task) - 0.05
    assert digits.accuracy(found.scores) > digits.accuracy(alone.scores) + 0.02


def test_more_steps_bring_the_student_nearer() -> None:
    few, many = (
        [
            strategy.fit(digits.task(digits.MLP, scratch={"steps": steps, "learning_rates": [1e-2]}))
            for steps in (2, 120)
        ]
        for strategy in (distill_logits, distill_features)
    )
    assert few[1].chosen["agreement"] > few[0].chosen["agreement"] + 0.1
    assert many[1].chosen["feature_error"] < 0.7 * many[0].chosen["feature_error"]


def test_all_train_rows_teach_and_only_the_budget_has_labels() -> None:
    task = digits.task(digits.MLP, labelled=7)
    assert task.context is not None
    positions, labels = all_rows(task, task.context)
    assert positions.tolist() == task.context.train.tolist()
    known = labels >= 0
    assert positions[known].tolist() == task.train.tolist()
    assert labels[known].tolist() == task.labels.tolist()


def test_features_are_learned_without_labels() -> None:
    """Other labels change the probe and not the student."""
    task = digits.task(digits.MLP, scratch={"steps": 5, "learning_rates": [1e-2]})
    other = dataclasses.replace(task, labels=(task.labels + 1) % 10)
    first, second = distill_features.fit(task), distill_features.fit(other)
    assert first.chosen["feature_error"] == second.chosen["feature_error"]
    assert not np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize("strategy", [distill_logits, distill_features])
def test_no_student_and_no_smaller_one_are_refused(strategy: object) -> None:
    encoder = digits.build(digits.MLP, 0)
    assert strategy.STRATEGY.check is check  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match=r"transfer\.distill\.student: name the small network"):
        check(Blueprint(encoder, Options()))
    named = Options.model_validate({"distill": {"student": "mlp:64x3"}})
    with pytest.raises(RequestError, match=r"transfer\.distill\.student: mlp:64x3 has [\d,]+ weights, and the encoder"):
        check(Blueprint(encoder, named, digits.build("mlp:64x3", 0)))
    check(Blueprint(encoder, named, digits.build("mlp:16x1", 0)))


def test_an_unknown_student_is_refused_by_its_key() -> None:
    named = Options.model_validate({"distill": {"student": "mlp:many"}})
    with pytest.raises(RequestError, match=r"^transfer\.distill\.student: no backbone 'mlp:many'"):
        build_student(named, modality="tabular", input_shape=(4,))


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"weight": 1.1}])
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.model_validate({"distill": wrong})
