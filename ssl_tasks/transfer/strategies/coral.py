"""CORAL: a linear probe on source features that are given the second moments of the target's.

Sun, Feng and Saenko, "Return of Frustratingly Easy Domain Adaptation" (arXiv 1511.05547, algorithm 1). Features are
standardized in each domain by itself, as the paper supposes them to be; then those of the source are whitened and
coloured with the covariance of the target. Val rows, of the source, go the same way, so that C is chosen where the
probe is fitted; target rows are but standardized.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ssl_tasks.transfer.base import Prediction, Strategy, Task
from ssl_tasks.transfer.gaps import gap
from ssl_tasks.transfer.networks.tuning import after, context_of, domains_of
from ssl_tasks.transfer.strategies import linear_probe

if TYPE_CHECKING:
    from ssl_tasks.transfer.base import FloatArray, IntArray

RIDGE = 1.0
"""Lambda of the paper's equation 4: C + lambda I can be inverted, and 1 is what the paper takes."""


def fit(task: Task) -> Prediction:
    """Align, and fit the probe."""
    context = context_of(task)
    domains, features = domains_of(context), context.features
    assert features is not None, "a probe needs the encoder's embeddings"
    of_source = linear_probe.standardize(features[domains.source])
    of_target = linear_probe.standardize(features[domains.target])
    matrix = alignment(of_source(features[domains.source]), of_target(features[domains.target]))

    def aligned(positions: IntArray) -> FloatArray:
        rows = features[positions]
        return np.where(np.isin(positions, domains.of_source)[:, None], of_source(rows) @ matrix, of_target(rows))

    train, val, test = (aligned(positions) for positions in (task.train, task.val, task.test))
    found = linear_probe.fit(replace(task, train=train, val=val, test=test))
    return replace(found, chosen=found.chosen | after(gap(*(aligned(rows) for rows in domains.held_out))))


def alignment(source_SD: FloatArray, target_TD: FloatArray) -> FloatArray:
    """(D, D) C_S^(-1/2) C_T^(1/2) with C = covariance + I, which rows of the source are multiplied by."""
    whiten, colour = (
        _power(np.cov(rows, rowvar=False).reshape(rows.shape[1], -1) + RIDGE * np.eye(rows.shape[1]), exponent)
        for rows, exponent in ((source_SD, -0.5), (target_TD, 0.5))
    )
    product: FloatArray = whiten @ colour
    return product


def _power(symmetric_DD: FloatArray, exponent: float) -> FloatArray:
    values, vectors = np.linalg.eigh(symmetric_DD)
    found: FloatArray = (vectors * values**exponent) @ vectors.T
    return found


STRATEGY = Strategy(
    "coral", "a linear probe aligned by CORAL", fit, needs="payload", adapts=True, counterpart="linear_probe"
)
