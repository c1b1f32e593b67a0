"""The quarantine table, written part by part: who, why, and a thumbnail to recognize the sample by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_tasks.artifact import Artifact, Cursor
from ssl_tasks.schema import FLAGGED, QUARANTINE, REJECTED, ROW, ROWS_FILE, SAMPLE_ID, SOURCE
from ssl_tasks.shards import iterate

EXAMPLES = 3
IDENTITY = [ROW, SAMPLE_ID, SOURCE]


@dataclass(frozen=True)
class Found:
    """Why a row is in quarantine."""

    reason: str
    detail: str | None
    severity: str = REJECTED


@dataclass
class Quarantine:
    """Writes the table and counts what goes in."""

    writer: pq.ParquetWriter
    stage: str
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {REJECTED: Counter(), FLAGGED: Counter()})
    examples: list[str] = field(default_factory=list)
    """The first rejected ones, for the message of a run that fails."""

    def add(self, identity: pa.Table, found: Sequence[Found], thumbnails: Sequence[bytes | None]) -> None:
        """Write rows: `identity` has `IDENTITY`'s columns, in the order of the others."""
        for source, one in zip(identity[SOURCE].to_pylist(), found, strict=True):
            self.counts[one.severity][one.reason] += 1
            if one.severity == REJECTED and len(self.examples) < EXAMPLES:
                self.examples.append(f"{source}: {one.reason} ({one.detail})")
        columns: dict[str, Any] = {name: identity[name] for name in IDENTITY}
        columns |= {
            "stage": pa.repeat(pa.scalar(self.stage), len(found)),
            **{
                name: pa.array([getattr(one, name) for one in found], pa.string())
                for name in ("severity", "reason", "detail")
            },
            "thumbnail": pa.array(thumbnails, pa.binary()),
        }
        self.writer.write_table(pa.table([columns[name] for name in QUARANTINE.names], schema=QUARANTINE))

    def add_rows(self, ingested: Artifact, modality: Any, found: Iterable[tuple[int, Found]]) -> None:
        """Write rows by number, with what is known of them taken from the ingest artifact; one shard's at a time.

        Args:
            found: row numbers, ascending, each as often as there is something to say of it.
        """
        left = iter(found)
        following = next(left, None)
        identities = Cursor(ingested.batches(ROWS_FILE, IDENTITY))
        for shard in iterate(ingested, "raw"):
            numbers = shard[ROW].chunk(0).to_numpy()
            identity = identities.take(len(numbers))
            rows: list[int] = []
            reasons: list[Found] = []
            while following is not None and following[0] <= numbers[-1]:
                rows.append(following[0])
                reasons.append(following[1])
                following = next(left, None)
            if rows:
                places = np.searchsorted(numbers, rows)
                once, line = np.unique(places, return_inverse=True)
                thumbnails = modality.thumbnails(shard.take(once))
                self.add(identity.take(places), reasons, [thumbnails[place] for place in line])
            if following is None:
                return


def identity_of(ingested: Artifact, rows: np.ndarray, columns: Sequence[str] = tuple(IDENTITY)) -> pa.Table:
    """Some columns of a few rows (ascending), found in one pass over the table."""
    parts = []
    first = 0
    for batch in ingested.batches(ROWS_FILE, list(columns)):
        begin, end = np.searchsorted(rows, [first, first + batch.num_rows])
        parts.append(batch.take(pa.array(rows[begin:end] - first, pa.int64())))
        first += batch.num_rows
    return pa.concat_tables(parts)
