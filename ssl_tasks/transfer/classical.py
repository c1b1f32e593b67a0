"""What strategies that wrap a scikit-learn classifier share: the choice on val, and probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ssl_tasks.transfer.base import FloatArray, IntArray, Task

T = TypeVar("T")
LOG_TEMPERATURE = (math.log(0.01), math.log(100.0))
"""Range that is searched."""


@dataclass(frozen=True)
class Fitted:
    """A trained classifier."""

    scores: Callable[[FloatArray], FloatArray]
    """Rows (N, D) to class probabilities (N, K)."""
    facts: dict[str, float] = field(default_factory=dict)
    """What is worth knowing of it."""
    model: Any = None
    """scikit-learn's, where somebody asks for its weights."""


def choose(
    task: Task, candidates: Sequence[T], default: T, train: Callable[[T], Fitted], patience: int = 0
) -> tuple[T, Fitted]:
    """The candidate that does best on val, with its classifier; `default` where val has no labels.

    Args:
        candidates: the simplest first: of equal ones the earlier is taken.
        patience: where it is not 0, no more are tried after so many in a row that did not better the best.
    """
    if not len(task.val_labels):
        return default, train(default)
    best: tuple[tuple[float, float], T, Fitted] | None = None
    in_vain = 0
    for candidate in candidates:
        fitted = train(candidate)
        value = task.val_score(fitted.scores(task.val))
        in_vain += 1
        if best is None or value > best[0]:
            best, in_vain = (value, candidate, fitted), 0
        if patience and in_vain == patience:
            break
    assert best is not None, "no candidates"
    return best[1], best[2]


def from_probabilities(model: Any, num_classes: int) -> Fitted:
    """The model's own `predict_proba`; a class that it never saw has none."""
    return Fitted(lambda rows: _spread(model.predict_proba(rows), model.classes_, num_classes))


def from_numbers(model: Any, scale: float = 1.0, offset: float = 0.0) -> Fitted:
    """The model's own `predict`, times `scale` and plus `offset`, as (N, 1) numbers."""
    return Fitted(lambda rows: model.predict(rows).reshape(-1, 1).astype(np.float64) * scale + offset)


def from_decisions(model: Any, task: Task) -> Fitted:
    """The softmax of the model's decision values over a temperature, which is fitted on val (1 without labels there).

    The order of the classes, and so what is predicted, is the model's. Temperature scaling is of Guo et al., "On
    Calibration of Modern Neural Networks", section 4.2 (arXiv 1706.04599).
    """
    classes = model.classes_
    place = np.full(task.num_classes, -1)
    place[classes] = np.arange(len(classes))
    known = place[task.val_labels] >= 0
    warmth = 1.0
    if known.any():
        warmth = temperature(decisions(model, task.val[known]), place[task.val_labels[known]])

    def scores(rows: FloatArray) -> FloatArray:
        return _spread(np.exp(_log_softmax(decisions(model, rows) / warmth)), classes, task.num_classes)

    return Fitted(scores, {"temperature": warmth})


def decisions(model: Any, rows: FloatArray) -> FloatArray:
    """(N, C) decision values of the C classes of the model; with two of them -v and v."""
    values: FloatArray = model.decision_function(rows)
    return np.stack([-values, values], axis=1) if values.ndim == 1 else values


def temperature(values: FloatArray, labels: IntArray) -> float:
    """The temperature under which the softmax of decision values (V, C) has the least cross-entropy.

    The target of a row is its class with weight V / (V + 1), and all classes evenly with the rest: without that rest,
    as in Platt's scaling (1999, section 2.2), rows that are all right would ask for temperature 0.
    """
    from scipy.optimize import minimize_scalar

    count = len(labels)
    index = np.arange(count)

    def loss(log_temperature: float) -> float:
        log_p = _log_softmax(values / math.exp(log_temperature))
        return float(-(count * log_p[index, labels] + log_p.mean(axis=1)).sum())

    return float(math.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURE, method="bounded").x))


def _log_softmax(values: FloatArray) -> FloatArray:
    shifted = values - values.max(axis=1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _spread(scores: FloatArray, classes: IntArray, num_classes: int) -> FloatArray:
    """Columns of the classes (N, C) to columns of all classes (N, K), 0 where there is none."""
    wide = np.zeros((len(scores), num_classes))
    wide[:, classes] = scores
    return wide
