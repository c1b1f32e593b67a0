"""A linear probe on each encoder, and the mean of their class probabilities under weights that val chooses.

The linear opinion pool (Genest and Zidek, "Combining Probability Distributions", Statistical Science 1986, section 2):
weights that are not negative and sum to 1, here those of the least log loss on val, which is convex in them. Equal
weights where val has no labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_tasks.transfer.base import FloatArray, IntArray, Prediction, Strategy, Task
from ssl_tasks.transfer.linear_probe import standardize
from ssl_tasks.transfer.several import probe_each

LEAST = 1e-12
"""Probability that a probe gives a class at least: one that it never saw has none, whose log there is not."""


def fit(task: Task) -> Prediction:
    """The weighted mean of the probes; `weight 0` is that of the run's own encoder."""
    probes = probe_each(task)
    weights = pool([probed.val for probed in probes], task.val_labels)
    mixed: FloatArray = np.tensordot(weights, np.stack([probed.test for probed in probes]), axes=1)
    facts = {f"weight {place}": float(weight) for place, weight in enumerate(weights)}
    return Prediction(mixed, facts | {f"C {place}": probed.strength for place, probed in enumerate(probes)})


def pool(scores: Sequence[FloatArray], labels: IntArray) -> FloatArray:
    """The weights (E,) under which the mean of E class probabilities (V, K) has the least log loss."""
    from scipy.optimize import minimize

    even = np.full(len(scores), 1.0 / len(scores))
    if not len(labels) or len(scores) == 1:
        return even
    given_EV = np.maximum(np.stack([each[np.arange(len(labels)), labels] for each in scores]), LEAST)
    found = minimize(
        lambda weights: -np.log(weights @ given_EV).mean(),
        even,
        jac=lambda weights: -(given_EV / (weights @ given_EV)).mean(axis=1),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(scores),
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
    encoders="several",
    counterpart="best_encoder",
)
