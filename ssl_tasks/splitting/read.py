"""Which split the rows of a split artifact stand in, read in parts: a byte a row, where their names take twenty."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import SPLIT, SPLITS, SPLITS_FILE


def split_numbers(split: Artifact) -> NDArray[np.int8]:
    """(N,) place of each row's split in `SPLITS`, in payload order."""
    names = pa.array(SPLITS)
    parts = [
        pc.index_in(batch[SPLIT], names).to_numpy().astype(np.int8) for batch in split.batches(SPLITS_FILE, [SPLIT])
    ]
    return np.concatenate(parts)


def positions_of(split: Artifact, name: str) -> NDArray[np.int64]:
    """(P,) positions of the rows of one split, ascending."""
    return np.flatnonzero(split_numbers(split) == SPLITS.index(name))
