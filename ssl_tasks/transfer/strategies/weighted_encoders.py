"""A linear probe on each encoder, and the mean of their class probabilities under weights that val chooses.

The linear opinion pool (Genest and Zidek, "Combining Probability Distributions", Statistical Science 1986, section 2):
weights that are not negative and sum to 1, here those of the least log loss on val, which is convex in them. Of numbers
it is the mean of what the probes predict (`ridge`) and the least squared error. Equal weights where val has no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.base import ALL_FITTED, FloatArray, Prediction, Strategy, Task
from ssl_tasks.transfer.several import probe_each
from ssl_tasks.transfer.strategies.linear_probe import standardize
from ssl_tasks.transfer.targets import CLASSIFICATION, REGRESSION

LEAST = 1e-12
"""Probability that a probe gives a class at least: one that it never saw has none, whose log there is not."""


def fit(task: Task) -> Prediction:
    """The weighted mean of the probes; `weight 0` is that of the run's own encoder."""
    probes = probe_each(task)
    weights = pool([probed.val for probed in probes], task.val_labels, task.task)
    mixed: FloatArray = np.tensordot(weights, np.stack([probed.test for probed in probes]), axes=1)
    return Prediction(mixed, {f"weight {place}": float(weight) for place, weight in enumerate(weights)})


def pool(scores: Sequence[FloatArray], labels: NDArray[Any], task: str = CLASSIFICATION) -> FloatArray:
    """The weights (E,) under which the mean of E scores (V, K) loses least on val.

    Args:
        labels: as `Task.labels`.
    """
    even = np.full(len(scores), 1.0 / len(scores))
    if not len(labels) or len(scores) == 1:
        return even
    if task == REGRESSION:
        scale = float(np.std(labels)) or 1.0
        return _least(_squared((np.stack(scores)[:, :, 0] - labels) / scale), even)
    if task == CLASSIFICATION:
        given_EV = np.stack([each[np.arange(len(labels)), labels] for each in scores])
    else:
        given_EV = np.stack([np.where(labels == 1, each, 1.0 - each).ravel() for each in scores])
    return _least(_log_loss(np.maximum(given_EV, LEAST)), even)


Loss = Callable[[FloatArray], tuple[float, FloatArray]]
"""Of weights (E,): a value, and its gradient (E,)."""


def _log_loss(given_EV: FloatArray) -> Loss:
    """Minus the mean log of what the pool gives to what is true; each probe gives `given_EV` to it."""

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        mixed_V = weights @ given_EV
        return float(-np.log(mixed_V).mean()), -(given_EV / mixed_V).mean(axis=1)

    return loss


def _squared(errors_EV: FloatArray) -> Loss:
    """The mean squared error of the pool: as weights sum to 1, its error is the mean of the probes' `errors_EV`."""

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        mixed_V = weights @ errors_EV
        return float((mixed_V**2).mean()), 2.0 * (errors_EV * mixed_V).mean(axis=1)

    return loss


def _least(loss: Loss, start: FloatArray) -> FloatArray:
    from scipy.optimize import minimize

    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(start),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1.0, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 500},
    )
    weights: FloatArray = np.clip(found.x, 0.0, None) / np.clip(found.x, 0.0, None).sum()
    return weights


STRATEGY = Strategy(
    "weighted_encoders",
    "linear probes on each encoder, weighted by val",
    fit,
    prepare=standardize,
    tasks=ALL_FITTED,
    encoders="several",
    counterpart="best_encoder",
)
