"""One classifier for each class against the rest, where a row may have several classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_tasks.transfer.base import FloatArray, IntArray


@dataclass(frozen=True)
class OneVsRest:
    """K classifiers."""

    models: Sequence[Any]
    """None for a class that all labelled rows have, or none has."""
    shares: FloatArray
    """(K,) of a class without a model, by Laplace's rule: (rows of it + 1) / (rows + 2), so that nothing is certain."""

    def scores(self, rows: FloatArray) -> FloatArray:
        """(N, K) probability of each class by itself."""
        columns = [
            np.full(len(rows), share) if model is None else model.predict_proba(rows)[:, 1]
            for model, share in zip(self.models, self.shares, strict=True)
        ]
        return np.stack(columns, axis=1)


def train_each(labels_NK: IntArray, fit: Callable[[IntArray], Any]) -> OneVsRest:
    """Fit a classifier for each class.

    Args:
        labels_NK: (N, K) 0 and 1.
        fit: from (N,) 0 and 1, both among them, to a model with `predict_proba`.
    """
    rows, found = len(labels_NK), labels_NK.sum(axis=0)
    models = [
        fit(np.ascontiguousarray(column)) if 0 < count < rows else None
        for column, count in zip(labels_NK.T, found, strict=True)
    ]
    return OneVsRest(models, (found + 1) / (rows + 2))
