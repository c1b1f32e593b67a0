"""Near duplicates without comparing all pairs.

Signatures are bit strings that differ in few bits where samples are alike. In each of `TABLES` orders, rows are
sorted by other bits of their signatures, and a row is compared with those next to it that share its first bits:
one table misses most pairs, all together hardly any. What the signatures let pass is checked on the prints.

On the 60,000 images of CIFAR-10 it looked at 23 of 1,800 million pairs and missed 1 of 538
(tests/benchmarks/near_duplicates.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.shards import Shards

Int = NDArray[np.int64]

TABLES = 48
WINDOW = 64
"""Neighbours that a row is compared with in one table, so that many equal keys cost no square."""
PAIRS_A_ROW = 8
"""More pairs than this for each row are thinned out to those that connect the same rows: the frames of a video would
cost kilobytes a row."""
SPARE_BITS = 20
"""Further bits, beyond those expected at the threshold, in which signatures may differ."""
CELLS = 1 << 16
"""Pairs checked at once."""


@dataclass(frozen=True)
class Near:
    """Pairs of positions, the smaller one first, in ascending order."""

    first: Int
    second: Int
    similarity: NDArray[np.float32]
    looked_at: int
    """Pairs that the index proposed."""


def find_near(
    signatures: Shards, prints: Shards, positions: Int, threshold: float, *, across: int | None = None
) -> Near:
    """All pairs that the index finds and whose prints have a product of `threshold` and more, see `PAIRS_A_ROW`.

    Args:
        signatures: (N, bytes) uint8 by position.
        prints: (N, D) float16 of length 1 by position.
        positions: which rows to compare.
        threshold: in (0, 1].
        across: compare only rows before this position with rows from it on: two data sets, one behind the other.
    """
    bits = 8 * signatures.shape[0]
    limit = round(bits * math.acos(threshold) / math.pi) + SPARE_BITS
    shared = max(8, math.floor(math.log2(max(2, len(positions)))) - 2)
    pairs = np.zeros(0, np.int64)
    looked_at = 0
    for table in range(TABLES):
        found = [pairs]
        for places in _neighbours(_keys(signatures, positions, table), shared):
            looked_at += len(places[0])
            first, second = (positions[side] for side in places)
            if across is not None:
                apart = (first < across) != (second < across)
                first, second = first[apart], second[apart]
            close = _within(signatures, first, second, limit)
            first, second = first[close], second[close]
            alike = _products(prints, first, second) >= threshold
            found.append(_packed(first[alike], second[alike]))
        pairs = np.unique(np.concatenate(found))
        if len(pairs) > PAIRS_A_ROW * len(positions):
            pairs = _forest(pairs)
    first, second = pairs >> 32, pairs & 0xFFFFFFFF
    return Near(first, second, _products(prints, first, second), looked_at)


def _forest(pairs: Int) -> Int:
    """As few of these (packed) pairs as connect the same rows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    rows, place = np.unique(np.concatenate([pairs >> 32, pairs & 0xFFFFFFFF]), return_inverse=True)
    edges = (np.ones(len(pairs), np.float32), (place[: len(pairs)], place[len(pairs) :]))
    kept = minimum_spanning_tree(coo_matrix(edges, shape=(len(rows), len(rows)))).tocoo()
    return np.unique(_packed(rows[kept.row], rows[kept.col]))


def _packed(first: Int, second: Int) -> Int:
    """A pair as one number, the smaller position in the upper half."""
    assert len(first) == 0 or max(first.max(), second.max()) < 1 << 31
    packed: Int = (np.minimum(first, second) << 32) | np.maximum(first, second)
    return packed


def _keys(signatures: Shards, positions: Int, table: int) -> NDArray[np.uint32]:
    """(N,) 32 bits of each signature, others in every table."""
    bits = 8 * signatures.shape[0]
    chosen = np.random.Generator(np.random.Philox(key=table)).permutation(bits)[:32]
    keys = np.empty(len(positions), np.uint32)
    for start in range(0, len(positions), CELLS // 4):
        part = signatures.take(positions[start : start + CELLS // 4])
        picked = np.unpackbits(part, axis=1)[:, chosen]
        keys[start : start + len(part)] = np.ascontiguousarray(np.packbits(picked, axis=1)).view(">u4")[:, 0]
    return keys


def _neighbours(keys: NDArray[np.uint32], shared: int) -> Iterator[tuple[Int, Int]]:
    """Pairs of places whose keys begin with the same `shared` bits and stand close in the order of the keys."""
    order = np.argsort(keys, kind="stable")
    start = keys[order] >> np.uint32(32 - min(32, shared))
    for distance in range(1, WINDOW + 1):
        here = np.flatnonzero(start[distance:] == start[:-distance])
        if not len(here):
            return
        for first in range(0, len(here), CELLS):
            part = here[first : first + CELLS]
            yield order[part], order[part + distance]


def _within(signatures: Shards, first: Int, second: Int, limit: int) -> NDArray[np.bool_]:
    """Which pairs differ in at most `limit` bits."""
    differ = np.bitwise_xor(signatures.take(first), signatures.take(second))
    counted: NDArray[np.bool_] = np.bitwise_count(differ).sum(axis=1, dtype=np.int64) <= limit
    return counted


def _products(prints: Shards, first: Int, second: Int) -> NDArray[np.float32]:
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), CELLS // 4):
        part = slice(start, start + CELLS // 4)
        left, right = (prints.take(side[part]).astype(np.float32) for side in (first, second))
        found[part] = np.einsum("nd,nd->n", left, right)
    return found
