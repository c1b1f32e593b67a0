"""Which rows belong together: pairs to connected sets, and one name for each set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.quarantine import identity_of
from ssl_tasks.schema import GROUP_ID, GROUPS, GROUPS_FILE, ROW, ROWS_FILE, SAMPLE_ID
from ssl_tasks.store import Output

Int = NDArray[np.int64]
Keys = NDArray[np.uint64]
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


def write_groups(out: Output, ingested: Artifact, kept: NDArray[np.bool_], sets: Sets) -> None:
    """`groups.parquet`: each kept row and its group, called after the least sample_id in it.

    So the name does not depend on the order of the rows.
    """
    names = _names(ingested, sets)
    first = 0
    with out.writer(GROUPS_FILE, GROUPS) as writer:
        for batch in ingested.batches(ROWS_FILE, [ROW, SAMPLE_ID]):
            begin, end = np.searchsorted(sets.rows, [first, first + batch.num_rows])
            joined = np.zeros(batch.num_rows, bool)
            joined[sets.rows[begin:end] - first] = True
            ids = batch[SAMPLE_ID].combine_chunks()
            if end > begin:
                ids = pc.replace_with_mask(ids, pa.array(joined), names.take(pa.array(sets.labels[begin:end])))
            table = pa.table([batch[ROW], ids], schema=GROUPS)
            writer.write_table(table.filter(pa.array(kept[first : first + batch.num_rows])))
            first += batch.num_rows


def _names(ingested: Artifact, sets: Sets) -> pa.Array:
    """The least sample_id of each set, by label."""
    ids = identity_of(ingested, sets.rows, [SAMPLE_ID])[SAMPLE_ID].combine_chunks()
    order = np.lexsort((pc.rank(ids).to_numpy(), sets.labels))
    leads = order[np.searchsorted(sets.labels[order], np.arange(len(sets.sizes)))]
    return ids.take(pa.array(leads, pa.int64()))
