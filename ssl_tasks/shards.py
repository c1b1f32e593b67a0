"""Payload shards: Arrow IPC files, uncompressed, bounded in rows and bytes, memory-mapped on reading.

    shards = Shards.open(normalized)
    shards.take(np.array([5, 17, 3]))     # (3, H, W, C) uint8 or (3, D) float32

Reading fixed-shape tensors from Parquet gave 24,000 to 33,000 images/s at 32 px; a random take from mapped IPC
gives over a million.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import PAYLOAD, ROW
from ssl_tasks.store import Output

MAX_ROWS = 8192
MAX_BYTES = 64 << 20


class ShardWriter:
    """Writes tables of one schema as `<prefix>/00000.arrow`, ...; a shard's rows depend on the data alone."""

    def __init__(self, out: Output, prefix: str, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> None:
        self.out, self.prefix = out, prefix
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self.count = 0
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Append rows; full shards are written at once, so memory holds one shard at most."""
        while table.num_rows:
            per_row = max(1, table.nbytes // table.num_rows)
            room = max(1, min(self.max_rows - self._rows, (self.max_bytes - self._bytes) // per_row))
            head, table = table.slice(0, room), table.slice(room)
            self._pending.append(head)
            self._rows += head.num_rows
            self._bytes += head.num_rows * per_row
            if self._rows >= self.max_rows or self._bytes + per_row > self.max_bytes:
                self.flush()

    def flush(self) -> None:
        """Write what is pending as one shard."""
        if not self._pending:
            return
        table = pa.concat_tables(self._pending).combine_chunks()
        with (
            self.out.file(f"{self.prefix}/{self.count:05d}.arrow") as path,
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=max(1, table.num_rows))  # one record batch a shard
        self.out.schemas.setdefault(self.prefix, table.schema.to_string(show_schema_metadata=False))
        self.count += 1
        self._pending, self._rows, self._bytes = [], 0, 0


def read_shard(path: Path) -> pa.Table:
    """One shard, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def in_parts(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    """A table in slices of at most `rows` rows."""
    return (table.slice(first, rows) for first in range(0, table.num_rows, rows))


def iterate(artifact: Artifact, prefix: str) -> Iterator[pa.Table]:
    """The shards of a family, in order."""
    for name in artifact.names(f"{prefix}/"):
        yield read_shard(artifact.path(name))


def select(artifact: Artifact, prefix: str, rows: np.ndarray) -> Iterator[pa.Table]:
    """The shards of a family reduced to `rows` (ascending); shards without any of them are left out."""
    for shard in iterate(artifact, prefix):
        held = shard[ROW].chunk(0).to_numpy()
        first, last = np.searchsorted(rows, [held[0], held[-1] + 1])
        places = np.searchsorted(held, rows[first:last])
        assert np.array_equal(held[places], rows[first:last]), f"{prefix} lacks rows that are asked for"
        if len(places):
            yield shard if len(places) == len(held) else shard.take(places)


def member(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """(N,) whether each value is among the ascending `of`; np.isin would copy and sort `of` every time."""
    if not len(of):
        return np.zeros(len(values), bool)
    found: np.ndarray = of[np.searchsorted(of, values).clip(0, len(of) - 1)] == values
    return found


class Shards:
    """Random access to the payload of a normalize artifact by position."""

    def __init__(self, rows: list[np.ndarray], payloads: list[np.ndarray]) -> None:
        self.payloads = payloads
        self.rows = rows
        self.starts = np.cumsum([0, *(len(payload) for payload in payloads)])
        self.shape: tuple[int, ...] = tuple(payloads[0].shape[1:])

    @classmethod
    def open(cls, artifact: Artifact, column: str = PAYLOAD) -> Shards:
        """Map all payload shards, or what stands beside the payload in them; nothing is read yet."""
        return cls.map([artifact.path(name) for name in artifact.names("payload/")], column)

    @classmethod
    def map(cls, paths: Sequence[Path], column: str) -> Shards:
        """Map one tensor column of these shards."""
        tables = [read_shard(path) for path in paths]
        payloads = [table[column].chunk(0).to_numpy_ndarray() for table in tables]
        return cls([table[ROW].chunk(0).to_numpy() for table in tables], payloads)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """(B, *shape) payloads at int64 `positions` (B,), in that order."""
        shard = np.searchsorted(self.starts, positions, side="right") - 1
        result = np.empty((len(positions), *self.shape), self.payloads[0].dtype)
        for number in np.unique(shard):
            here = shard == number
            result[here] = self.payloads[number][positions[here] - self.starts[number]]
        return result


def tensor_array(values: np.ndarray) -> pa.Array:
    """(N, ...) numpy values as an Arrow fixed-shape tensor column."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
