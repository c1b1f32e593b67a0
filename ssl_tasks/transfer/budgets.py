"""Nested label budgets: which labelled train rows a fit may see.

The rows of each class stand in an order that depends on their `label_key` and the seed alone; a budget is a
prefix of it. So a larger budget contains a smaller one, and a new row moves no other row.

    positions = draw(split.table("splits.parquet"), fraction=0.1, seed=0)
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.schema import LABEL, LABEL_KEY, SPLIT, TRAIN


def draw(splits: pa.Table, fraction: float, seed: int) -> NDArray[np.int64]:
    """Positions of the train rows whose labels may be used, ascending.

    Args:
        splits: `schema.SPLIT_ROWS`, in payload order.
        fraction: of the labelled train rows of each class, rounded half up, but at least one row a class.
        seed: of the draw.

    Raises:
        ValueError: `fraction` is not in (0, 1].
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"a label fraction lies in (0, 1], not {fraction}")
    usable = pc.and_(pc.equal(splits[SPLIT], TRAIN), pc.is_valid(splits[LABEL]))
    positions = np.flatnonzero(usable.to_numpy())
    labels = splits[LABEL].take(positions).to_numpy()
    order = _order(splits[LABEL_KEY].take(positions).to_numpy(), seed)
    chosen = [_prefix(order[labels[order] == label], fraction) for label in np.unique(labels)]
    return np.sort(positions[np.concatenate(chosen)]) if chosen else positions


def _order(label_keys: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    import torch

    from ssl_tasks.randomness import row_keys

    keys = row_keys(seed, 0, torch.from_numpy(label_keys.copy())).numpy()
    return np.argsort(keys, kind="stable")


def _prefix(ordered: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    return ordered[: max(1, math.floor(fraction * len(ordered) + 0.5))]
