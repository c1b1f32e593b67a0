"""Which rows belong together: pairs to connected sets, and one name for each set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import GROUP_ID, GROUPS, GROUPS_FILE, ROWS_FILE
from ssl_tasks.store import Output

Int = NDArray[np.int64]
Keys = NDArray[np.uint64]
PART = 1 << 16
Pairs = tuple[Int, Int]
"""Rows of the one side and of the other."""


@dataclass(frozen=True)
class Sets:
    """Disjoint sets of two rows and more; rows that are in none of them stand alone."""

    rows: Int
    """(E,) ascending."""
    labels: Int
    """(E,) number of the set, from 0."""

    @property
    def sizes(self) -> Int:
        """Rows of each set."""
        return np.bincount(self.labels)


def key_of(data: bytes) -> int:
    """64 bits of a hash: the odds that two of 50 million meet by chance are 1 in 10,000."""
    return int.from_bytes(data[:8], "little")


def equal_pairs(keys: Keys, rows: Int) -> Pairs:
    """Each row whose key stood before, and the first row with that key.

    Args:
        keys: (N,) by row.
        rows: those to look at, ascending.
    """
    order = np.argsort(keys[rows], kind="stable")
    ordered = keys[rows[order]]
    fresh = np.ones(len(rows), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    firsts, repeated = np.flatnonzero(fresh), np.flatnonzero(~fresh)
    heads = firsts[np.searchsorted(firsts, repeated, side="right") - 1]
    return rows[order[repeated]], rows[order[heads]]


def named_pairs(ingested: Artifact, kept: NDArray[np.bool_]) -> Pairs:
    """Pairs of kept rows that the user put into one group."""
    keys = np.zeros(len(kept), np.uint64)
    named = np.zeros(len(kept), bool)
    first = 0
    for batch in ingested.batches(ROWS_FILE, [GROUP_ID]):
        for row, name in enumerate(batch[GROUP_ID].to_pylist(), start=first):
            if name is not None and kept[row]:
                keys[row], named[row] = key_of(hashlib.blake2b(name.encode(), digest_size=8).digest()), True
        first += batch.num_rows
    return equal_pairs(keys, np.flatnonzero(named))


def connect(pairs: Sequence[Pairs]) -> Sets:
    """The connected sets of rows: who is paired with a row's pair belongs to it too."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left, right = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    rows, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    if not len(rows):
        return Sets(rows, rows)
    edges = (np.ones(len(left), np.int8), (place[: len(left)], place[len(left) :]))
    labels = connected_components(coo_matrix(edges, shape=(len(rows), len(rows))), directed=False)[1]
    return Sets(rows, labels.astype(np.int64))


def write_groups(out: Output, kept: NDArray[np.bool_], keys: Keys, sets: Sets) -> None:
    """`groups.parquet`: each kept row, its group, and its content key. A group is called after the least key in it.

    So neither the order of the rows nor the files' names move a group to another split.
    """
    names = keys.copy()
    names[sets.rows] = _least(keys[sets.rows], sets)
    rows = np.flatnonzero(kept)
    with out.writer(GROUPS_FILE, GROUPS) as writer:
        for first in range(0, len(rows), PART):
            part = rows[first : first + PART]
            ids = [f"{name:016x}" for name in names[part].tolist()]
            writer.write_table(pa.table([part, ids, keys[part]], schema=GROUPS))


def _least(keys: Keys, sets: Sets) -> Keys:
    """(E,) the least key of each row's set."""
    least = np.full(len(sets.sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, sets.labels, keys)
    return least[sets.labels]
