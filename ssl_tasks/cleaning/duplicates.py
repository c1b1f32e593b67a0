"""Equal and nearly equal samples, and what is wrong with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.groups import Pairs, Sets, connect, equal_pairs
from ssl_tasks.cleaning.near import find_near
from ssl_tasks.cleaning.quarantine import Found, identity_of
from ssl_tasks.cleaning.scan import PRINT, PRINTS, SIGNATURE, Scanned
from ssl_tasks.schema import DUPLICATES, DUPLICATES_FILE, FLAGGED, LABEL, SOURCE
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
        fresh = np.ones(len(kept), bool)  # of equal rows one is enough
        fresh[np.searchsorted(kept, equal[0])] = False
        signatures, prints = Shards.map(paths, SIGNATURE), Shards.map(paths, PRINT)
        found = find_near(signatures, prints, np.flatnonzero(fresh), threshold)
        near, similarity, looked_at = (kept[found.first], kept[found.second]), found.similarity, found.looked_at
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


def conflicts(ingested: Artifact, sets: Sets) -> tuple[dict[int, Found], int]:
    """Rows of duplicates whose labels contradict each other, each with what another says, and the number of sets."""
    flagged: dict[int, Found] = {}
    count = 0
    table = identity_of(ingested, sets.rows, [SOURCE, LABEL])
    codes = table[LABEL].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    known = np.flatnonzero(codes >= 0)
    order = known[np.argsort(sets.labels[known], kind="stable")]
    starts = np.flatnonzero(np.diff(sets.labels[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        if len(np.unique(codes[members])) < 2:
            continue
        count += 1
        lines = table.take(pa.array(members)).to_pylist()
        source_of = {line[LABEL]: line[SOURCE] for line in lines}
        for place, line in zip(members, lines, strict=True):
            label, source = next(pair for pair in source_of.items() if pair[0] != line[LABEL])
            detail = f"{line[LABEL]}; its duplicate {source} is {label}"
            flagged[int(sets.rows[place])] = Found("conflicting_label", detail, FLAGGED)
    return flagged, count
