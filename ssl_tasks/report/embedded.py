"""The embeddings that the report shows, read in parts: there may be far more rows than are shown."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.predictions import Int
from ssl_tasks.schema import EMBEDDING

Float = NDArray[np.float64]
PART_ROWS = 2048


def parts(embed: Artifact, name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Position of the first row, and (rows, D), of each part of one file."""
    first = 0
    for batch in embed.batches(name, [EMBEDDING], PART_ROWS):
        column = batch[EMBEDDING].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        yield first, flat.reshape(batch.num_rows, -1)
        first += batch.num_rows


def take(embed: Artifact, name: str, positions: Int) -> Float:
    """(P, D) at distinct positions, in that order."""
    order = np.argsort(positions)
    ascending = positions[order]
    found = []
    for first, values in parts(embed, name):
        begin, end = np.searchsorted(ascending, [first, first + len(values)])
        found.append(values[ascending[begin:end] - first])
    taken = np.concatenate(found).astype(np.float64)
    result = np.empty_like(taken)
    result[order] = taken
    return result
