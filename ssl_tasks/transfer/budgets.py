"""Nested label budgets: which labelled train rows a fit may see.

The rows of each class stand in an order that depends on their `label_key` and the seed alone; a budget is a
prefix of it. So a larger budget contains a smaller one, and a new row moves no other row.

    positions = draw(split.table("splits.parquet"), Budget(fraction=0.1), seed=0)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.schema import LABEL, LABEL_KEY, SPLIT, TRAIN

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Budget:
    """How many labelled train rows of each class: a share of them, or a number where `per_class` is not 0."""

    fraction: float = 1.0
    """Rounded half up, but at least one row a class."""
    per_class: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"a label fraction lies in (0, 1], not {self.fraction}")

    def rows(self, available: int) -> int:
        """Rows of a class that has so many."""
        return self.per_class or max(1, math.floor(self.fraction * available + 0.5))


def draw(splits: pa.Table, budget: Budget, seed: int) -> Int:
    """Positions of the train rows whose labels may be used, ascending.

    Args:
        splits: `schema.SPLIT_ROWS`, in payload order.
        seed: of the draw.
    """
    usable = pc.and_(pc.equal(splits[SPLIT], TRAIN), pc.is_valid(splits[LABEL]))
    return _prefixes(splits, np.flatnonzero(usable.to_numpy()), budget.rows, seed)


def limit(splits: pa.Table, positions: Int, most: int, seed: int) -> Int:
    """At most `most` of a budget's positions, but one of each class: the same share of each, as a smaller budget."""
    share = most / max(most, len(positions))
    return _prefixes(splits, positions, lambda available: max(1, math.floor(share * available)), seed)


def num_labelled(splits: pa.Table) -> int:
    """Number of train rows with a label."""
    return int(pc.sum(pc.and_(pc.equal(splits[SPLIT], TRAIN), pc.is_valid(splits[LABEL]))).as_py() or 0)


def _prefixes(splits: pa.Table, positions: Int, rows: Callable[[int], int], seed: int) -> Int:
    labels = splits[LABEL].take(positions).to_numpy()
    order = _order(splits[LABEL_KEY].take(positions).to_numpy(), seed)
    of_class = [order[labels[order] == label] for label in np.unique(labels)]
    chosen = [ordered[: rows(len(ordered))] for ordered in of_class]
    return np.sort(positions[np.concatenate(chosen)]) if chosen else positions


def _order(label_keys: Int, seed: int) -> Int:
    import torch

    from ssl_tasks.randomness import row_keys

    keys = row_keys(seed, 0, torch.from_numpy(label_keys.copy())).numpy()
    return np.argsort(keys, kind="stable")
