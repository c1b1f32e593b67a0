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
TRIAL = """
import contextlib, os, pickle, sys
told = os.dup(1)
os.dup2(2, 1)  # a decoder may print
modality, raw, config, first = pickle.load(sys.stdin.buffer)
for place in range(first, raw.num_rows):
    os.write(told, b"%d\\n" % place)
    with contextlib.suppress(Exception):
        modality.check(raw.slice(place, 1), config)
"""


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
    """Places in `raw` of the samples over which a process dies.

    Another process examines them one by one and says which comes next. It starts once and again after each death;
    halving 640 rows took 20 starts, each with its imports.
    """
    found: list[int] = []
    first = 0
    while first < raw.num_rows and (place := _dies_at(modality, raw, config, first)) is not None:
        found.append(place)
        first = place + 1
    return found


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


def _dies_at(modality: Any, raw: pa.Table, config: Any, first: int) -> int | None:
    """Where a signal ends a process that examines the samples from `first` on; None where none does.

    An exception ends nothing: it is for this process to raise.
    """
    given = pickle.dumps((modality, raw.combine_chunks(), config, first))
    # `-c` and not a module: nothing of ours is imported before it is unpickled
    done = subprocess.run([sys.executable, "-c", TRIAL], input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    told = done.stdout.split()
    return int(told[-1]) if told and done.returncode < 0 else None
