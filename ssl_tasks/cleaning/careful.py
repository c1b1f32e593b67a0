"""Samples that end the process which decodes them: sought after such a death, in other processes, and rejected.

While a part is examined a note in the store says which one. Whoever starts and finds the note knows that a process
died over that part, and tries it elsewhere first.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.schema import ROW
from ssl_tasks.store import Output

NOTE_FILE = "examining.json"
CRASHES = "crashes_decoder"
TRIAL = "import pickle, sys; modality, raw, config = pickle.load(sys.stdin.buffer); modality.check(raw, config)"


class Notes:
    """Which part is being examined, and over which ones a process has died."""

    def __init__(self, out: Output) -> None:
        self._store, self._path = out.store, f"partial/{out.fingerprint}/{NOTE_FILE}"
        found: dict[str, Any] = self._store.read_json(self._path) or {}
        self.deadly = {*found.get("deadly", ()), found.get("now")} - {None}
        """First rows of these parts."""

    def examining(self, row: int | None) -> None:
        """The part that begins with `row` is next; None: none is."""
        self._store.write_json(self._path, {"deadly": sorted(self.deadly), "now": row})


@contextmanager
def notes(out: Output) -> Iterator[Notes]:
    """Notes that an orderly end, an error or Ctrl-C too, leaves without a part that is being examined."""
    kept = Notes(out)
    try:
        yield kept
    finally:
        kept.examining(None)


def crashing(modality: Any, raw: pa.Table, config: Any) -> list[int]:
    """Places in `raw` of the samples over which a process dies, found by halving: a process start for each trial."""
    if not _dies(modality, raw, config):
        return []
    if raw.num_rows == 1:
        return [0]
    half = raw.num_rows // 2
    later = crashing(modality, raw.slice(half), config)
    return [*crashing(modality, raw.slice(0, half), config), *(half + place for place in later)]


def without(raw: pa.Table, places: list[int]) -> pa.Table:
    """`raw` with nulls in place of these samples' content."""
    if not places:
        return raw
    keep = pa.array([place not in set(places) for place in range(raw.num_rows)])
    columns = [
        column if name == ROW else pa.chunked_array([_nulled(column.combine_chunks(), keep)])
        for name, column in zip(raw.column_names, raw.columns, strict=True)
    ]
    return pa.table(columns, names=raw.column_names)


def _nulled(column: pa.Array, keep: pa.Array) -> pa.Array:
    return pc.if_else(keep, column, pa.scalar(None, column.type))


def _dies(modality: Any, raw: pa.Table, config: Any) -> bool:
    """Whether a signal ends a process that examines `raw`; an exception is for this process to raise."""
    given = pickle.dumps((modality, raw.combine_chunks(), config))
    # `-c` and not a module: nothing of ours is imported before it is unpickled
    done = subprocess.run([sys.executable, "-c", TRIAL], input=given, capture_output=True)
    return done.returncode < 0
