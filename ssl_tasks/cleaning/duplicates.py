"""Equal and nearly equal samples, and what is wrong with their labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.groups import Int, Pairs, Sets, connect, equal_pairs
from ssl_tasks.cleaning.near import find_near
from ssl_tasks.cleaning.quarantine import Found, identity_of
from ssl_tasks.cleaning.scan import PRINT, PRINTS, SIGNATURE, Scanned
from ssl_tasks.schema import DUPLICATES, DUPLICATES_FILE, FLAGGED, LABEL, LABELS, SOURCE
from ssl_tasks.shards import Shards
from ssl_tasks.store import Output

PART = 1 << 16


@dataclass(frozen=True)
class Duplicates:
    """Pairs of kept rows."""

    equal: Pairs
    near: Pairs
    similarity: NDArray[np.float32]
    """Of the near pairs."""
    looked_at: int
    """Pairs that were compared to find them."""
    sets: Sets
    """The pairs' connected sets."""


def find_duplicates(out: Output, scanned: Scanned, threshold: float | None) -> Duplicates:
    """Equal rows by their keys and, with a threshold, near ones by their prints; writes `duplicates.parquet`."""
    kept = np.flatnonzero(scanned.kept)
    equal = equal_pairs(scanned.keys, kept)
    near: Pairs = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    similarity, looked_at = np.zeros(0, np.float32), 0
    paths = [out.path(name) for name in sorted(out.entries) if name.startswith(f"{PRINTS}/")]
    if threshold is not None and paths:
        fresh = scanned.kept.copy()  # of equal rows one is enough
        fresh[equal[0]] = False
        printed = np.flatnonzero(scanned.examined)
        signatures, prints = Shards.map(paths, SIGNATURE), Shards.map(paths, PRINT)
        found = find_near(signatures, prints, np.flatnonzero(fresh[printed]), threshold)
        near, similarity, looked_at = (printed[found.first], printed[found.second]), found.similarity, found.looked_at
    with out.writer(DUPLICATES_FILE, DUPLICATES) as writer:
        for kind, (rows, others), alike in (
            ("equal", equal, np.ones(len(equal[0]), np.float32)),
            ("near", near, similarity),
        ):
            for first in range(0, len(rows), PART):
                part = slice(first, first + PART)
                kinds = pa.repeat(pa.scalar(kind), len(rows[part]))
                writer.write_table(pa.table([rows[part], others[part], kinds, alike[part]], schema=DUPLICATES))
    return Duplicates(equal, near, similarity, looked_at, connect([equal, near]))


def conflicts(ingested: Artifact, sets: Sets) -> tuple[Iterator[tuple[int, Found]], int]:
    """Rows of duplicates whose labels contradict each other, ascending, each with what another says; number of sets."""
    table = identity_of(ingested, sets.rows, [SOURCE, LABEL, LABELS])
    said = _said(table)
    codes = said.dictionary_encode().indices.fill_null(-1).to_numpy()
    known = np.flatnonzero(codes >= 0)
    order = known[np.argsort(sets.labels[known], kind="stable")]
    starts = np.flatnonzero(np.diff(sets.labels[order], prepend=-1))
    number = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    heads = order[starts][number]
    differing = np.flatnonzero(codes[order] != codes[heads])
    contradicted, first = np.unique(number[differing], return_index=True)
    others = np.full(len(starts), -1)
    others[contradicted] = order[differing[first]]
    other = others[number]
    other[differing] = heads[differing]
    hit = np.flatnonzero(other >= 0)
    hit = hit[np.argsort(order[hit])]
    return _contradictions(sets.rows, table[SOURCE], said, order[hit], other[hit]), len(contradicted)


def _said(table: pa.Table) -> pa.Array:
    """(N,) labels as a text to compare, several of a row sorted and apart by NUL; null where none are known."""
    one, several = (table[name].combine_chunks() for name in (LABEL, LABELS))
    if several.null_count == len(several):
        return one
    lists = (value.as_py() for value in several)
    joined = (None if value is None else "\0".join(sorted(set(value))) for value in lists)
    return pc.coalesce(one, pa.array(joined, pa.string()))


def _contradictions(rows: Int, source: Any, said: pa.Array, places: Int, others: Int) -> Iterator[tuple[int, Found]]:
    for place, other in zip(places, others, strict=True):
        mine, theirs = (said[i].as_py().replace("\0", ", ") or "without a class" for i in (place, other))
        detail = f"{mine}; its duplicate {source[other].as_py()} is {theirs}"
        yield int(rows[place]), Found("conflicting_label", detail, FLAGGED)
