"""The groups of all rows, as arrays of numbers: 25 bytes a row, whatever names and labels are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact, Cursor
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import GROUP_ID, GROUPS_FILE, LABEL, ROW, ROWS_FILE, SPLIT, SPLIT_NAMES, SPLITS, TEST, TRAIN

Int8 = NDArray[np.int8]
Int = NDArray[np.int64]

NOT_GIVEN = -1
PART = 1 << 16
"""Keys that are drawn at once: what they are mixed of takes five times their room."""


@dataclass
class Grouped:
    """N kept rows in G groups; a split is its place in `SPLITS`."""

    rows: Int
    """(N,) ascending."""
    group: NDArray[np.int32]
    """(N,) number of the row's group."""
    given: Int8
    """(N,) the split that the data names, or `NOT_GIVEN`."""
    key: NDArray[np.uint64]
    """(G,) the first 64 bits of the group's name."""
    size: Int
    """(G,) rows."""
    label: NDArray[np.int32]
    """(G,) the most frequent label's place among the sorted labels; 0 is none."""

    @property
    def any_given(self) -> bool:
        """Whether the data names a split anywhere."""
        return bool((self.given != NOT_GIVEN).any())

    def highest_given(self) -> Int8:
        """(G,) test outranks val, val outranks train; `NOT_GIVEN` where no row of the group has one."""
        highest = np.full(len(self.size), NOT_GIVEN, np.int8)
        np.maximum.at(highest, self.group, self.given)
        return highest

    def random_order(self, seed: int) -> NDArray[np.int32]:
        """(G,) each group's place in an order that hangs on the seed and the groups' names alone."""
        import torch

        from ssl_tasks.randomness import row_keys

        keys, place = np.empty(len(self.key), np.int64), np.empty(len(self.key), np.int32)
        for first in range(0, len(keys), PART):
            part = slice(first, first + PART)
            keys[part] = row_keys(seed, 0, torch.from_numpy(self.key[part].view(np.int64))).numpy()
        place[np.argsort(keys, kind="stable")] = np.arange(len(keys), dtype=np.int32)
        return place


def read_groups(ingested: Artifact, cleaned: Artifact, *, use_given: bool) -> Grouped:
    """Read `groups.parquet` and what the ingest artifact knows of its rows.

    Raises:
        RequestError: a given split has an unknown name.
    """
    count = cleaned.rows
    rows, keys = np.empty(count, np.int64), np.empty(count, np.uint64)
    labels, given = np.zeros(count, np.int32), np.full(count, NOT_GIVEN, np.int8)
    names: dict[str, int] = {}
    first = 0
    for kept, identity in side_by_side(ingested, cleaned.batches(GROUPS_FILE), [LABEL, SPLIT]):
        part = slice(first, first + kept.num_rows)
        rows[part] = kept[ROW].to_numpy()
        keys[part] = hex_keys(kept[GROUP_ID])
        labels[part] = [
            0 if name is None else names.setdefault(name, len(names) + 1) for name in identity[LABEL].to_pylist()
        ]
        if use_given:
            given[part] = [_given(name) for name in identity[SPLIT].to_pylist()]
        first += kept.num_rows
    places = np.zeros(len(names) + 1, np.int32)
    places[[names[name] for name in sorted(names)]] = np.arange(1, len(names) + 1)
    group, key, size = number_groups(keys)
    return Grouped(rows, group, given, key, size, _most_frequent(group, places[labels], size))


def side_by_side(
    ingested: Artifact, kept: Iterator[pa.Table], columns: list[str]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Parts of a table of kept rows, each with the same rows of the ingest artifact."""
    cursor = Cursor(ingested.batches(ROWS_FILE, [ROW, *columns]))
    first = 0
    for part in kept:
        wanted = part[ROW].to_numpy()
        whole = cursor.take(int(wanted[-1]) + 1 - first) if len(wanted) else part.slice(0, 0)
        yield part, whole.take(pa.array(wanted - first, pa.int64()))
        first += whole.num_rows


def hex_keys(names: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The first 64 bits of ids that are written as hex digits."""
    return np.array([int(name[:16], 16) for name in names.to_pylist()], np.uint64)


def number_groups(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.uint64], Int]:
    """(N,) numbers of the groups, and for each group its key and its size; groups in the order of their keys."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    fresh = np.ones(len(keys), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    group = np.empty(len(keys), np.int32)
    group[order] = np.cumsum(fresh, dtype=np.int32) - 1
    return group, ordered[fresh], np.diff(np.flatnonzero(np.append(fresh, True)))


def _given(name: str | None) -> int:
    if name is None:
        return NOT_GIVEN
    plain = SPLIT_NAMES.get(name.lower())
    if plain is None:
        raise RequestError(f"ingest.split_column: {name!r} is none of train, val, test")
    return SPLITS.index(plain)


def _most_frequent(group: NDArray[np.int32], labels: NDArray[np.int32], size: Int) -> NDArray[np.int32]:
    """(G,) of equally frequent labels the first by name."""
    most = np.empty(len(size), np.int32)
    most[group] = labels  # right where a group has one row
    several = np.flatnonzero(size[group] > 1)
    if len(several):
        pairs, counts = np.unique(np.stack([group[several], labels[several]], axis=1), axis=0, return_counts=True)
        order = np.lexsort((-pairs[:, 1], counts, pairs[:, 0]))
        most[pairs[order, 0]] = pairs[order, 1]  # the last one written is the most frequent
    return most


def leaked_rows(group: NDArray[np.int32], splits: NDArray[np.int8]) -> int:
    """How many test rows have a group mate in train."""
    in_train = np.zeros(int(group.max(initial=-1)) + 1, bool)
    in_train[group[splits == SPLITS.index(TRAIN)]] = True
    return int(in_train[group[splits == SPLITS.index(TEST)]].sum())
