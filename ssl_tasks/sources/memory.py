"""What was seen of each file the last time: size, time of change, content hash. It only saves time.

A Parquet file in the cache folder, sorted by key and read along with the walk, so that it never stands in memory as
a whole. It is replaced at the end of a listing that found something else, and left alone by one that did not.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_tasks.config import digest
from ssl_tasks.store.cache import cache_home

SCHEMA = pa.schema([("key", pa.string()), ("size", pa.int64()), ("time", pa.int64()), ("hash", pa.string())])
ROW_GROUP = 8192
BATCH = 2048
STALE_SECONDS = 86_400.0


class Seen(NamedTuple):
    """A file as it was the last time."""

    size: int
    time: int
    """Of the last change, in nanoseconds."""
    hash: str | None
    """None where there was no such file."""


class Memory:
    """The memory of one source, by its place and by what is read of it."""

    def __init__(self, *what: str) -> None:
        self.path = cache_home() / "sources" / f"{digest(list(what))[:32]}.parquet"

    def __len__(self) -> int:
        """Number of files; 0 where nothing is known."""
        file = self._open()
        return file.metadata.num_rows if file else 0

    def forget(self) -> None:
        """Drop it: it holds a hash that a file with the same size and time does not have."""
        self.path.unlink(missing_ok=True)

    def entries(self) -> Iterator[tuple[str, Seen]]:
        """All that is known, in the order of the keys; ends where the file is damaged."""
        file = self._open()
        if file is None:
            return
        try:
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                for key, *values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield key, Seen(*values)
        except (pa.ArrowException, OSError):
            return

    def _open(self) -> pq.ParquetFile | None:
        try:
            file = pq.ParquetFile(self.path, page_checksum_verification=True, pre_buffer=False)
        except (pa.ArrowException, OSError):
            return None
        return file if file.schema_arrow.equals(SCHEMA) else None

    def temporary(self) -> Path:
        """Where a new memory is written; what killed processes left behind is removed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f".{self.path.stem}.*"):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink(missing_ok=True)
        return self.path.with_name(f".{self.path.stem}.{uuid.uuid4().hex}")


class Recall:
    """Looks keys up in a memory, each call from where the last one ended."""

    def __init__(self, memory: Memory) -> None:
        self._entries = memory.entries()
        self._next = next(self._entries, None)

    def look_up(self, keys: Sequence[str]) -> tuple[list[Seen | None], bool]:
        """What is known of each of these ascending keys, and whether these keys are just what comes next."""
        found: list[Seen | None] = []
        consecutive = True
        for key in keys:
            while self._next is not None and self._next[0] < key:
                self._next = next(self._entries, None)
                consecutive = False
            if self._next is not None and self._next[0] == key:
                found.append(self._next[1])
                self._next = next(self._entries, None)
            else:
                found.append(None)
                consecutive = False
        return found, consecutive


class Update:
    """Writes what a listing finds, from the first difference on; what stood before that is copied."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._confirmed = 0
        self._writer: pq.ParquetWriter | None = None
        self._temporary: Path | None = None
        self._rows: list[tuple[str, Seen]] = []

    def __enter__(self) -> Update:
        return self

    def add(self, keys: Sequence[str], seen: Sequence[Seen], *, unchanged: bool) -> None:
        """The next files; `unchanged` where they are the memory's next ones and as it has them."""
        if unchanged and self._writer is None:
            self._confirmed += len(keys)
            return
        if self._writer is None:
            self._begin()
        self._rows += zip(keys, seen, strict=True)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Replace the memory, if something differs."""
        if self._writer is None:
            if self._confirmed == len(self._memory):
                return
            self._begin()
        self._flush()
        self._close()
        assert self._temporary is not None
        os.replace(self._temporary, self._memory.path)

    def _begin(self) -> None:
        self._temporary = self._memory.temporary()
        self._writer = pq.ParquetWriter(
            self._temporary, SCHEMA, compression="zstd", use_dictionary=False, write_page_checksum=True
        )
        for number, (key, seen) in enumerate(self._memory.entries()):
            if number == self._confirmed:
                break
            self._rows.append((key, seen))
            if len(self._rows) >= ROW_GROUP:
                self._flush()

    def _flush(self) -> None:
        if self._rows and self._writer is not None:
            columns = zip(*((key, *seen) for key, seen in self._rows), strict=True)
            self._writer.write_table(pa.table([*map(pa.array, columns, SCHEMA.types)], schema=SCHEMA))
            self._rows = []

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A listing that did not come to its end leaves the memory as it was."""
        self._close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
