"""Where a stage writes: files below one attempt, each with its size and checksum. Picklable, for workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ssl_tasks.artifact import Artifact, FileEntry, parquet_batches

if TYPE_CHECKING:
    from ssl_tasks.store.filesystem import Store

PROGRESS_FILE = "progress.json"
"""Below `partial/<fingerprint>/`: how far a stage is, for the live line."""
PROGRESS_SECONDS = 1.0


@dataclass
class Output:
    """The `out` of a stage. `artifact(...)` ends it; the manifest is written by `materialize` after that."""

    uri: str
    fingerprint: str
    attempt: str
    stage: str
    entries: dict[str, FileEntry] = field(default_factory=dict)
    schemas: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)
    """Artifacts that the stage read besides its inputs, by role: they become parents too."""
    told: float = -math.inf
    """When progress was last told, on this process's clock."""

    @property
    def store(self) -> Store:
        """The store, opened once per process."""
        return Artifact(self.uri, self.fingerprint, self.stage, 0).store

    @contextlib.contextmanager
    def file(self, name: str, *, rendering: bool = False) -> Iterator[Path]:
        """A local path to write `name` to; on leaving, it is hashed and, on object storage, uploaded.

        Args:
            name: relative, the same for equal inputs: no random names.
            rendering: for what is looked at (HTML, PNG) and may hold times; no part of the data checksum.
        """
        store = self.store
        target = store.full(f"objects/{self.fingerprint}/{self.attempt}/{name}")
        if store.is_local:
            path = Path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
            self._record(name, path, rendering)
            return
        with tempfile.TemporaryDirectory(prefix="pretextflow-") as folder:
            path = Path(folder) / Path(name).name
            yield path
            with open(path, "rb") as source, store.fs.open_output_stream(target) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            self._record(name, path, rendering)

    def _record(self, name: str, path: Path, rendering: bool) -> None:
        with open(path, "rb") as stream:
            checksum = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        self.entries[name] = FileEntry(bytes=path.stat().st_size, sha256=checksum, rendering=rendering)

    def table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet table."""
        with self.file(name) as path:
            pq.write_table(table, path, compression="zstd")
        self.schemas[name] = table.schema.to_string(show_schema_metadata=False)

    @contextlib.contextmanager
    def writer(self, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """A Parquet table that is written part by part, so that memory holds one part."""
        with self.file(name) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield writer
        self.schemas[name] = schema.to_string(show_schema_metadata=False)

    def progress(self, done: int, total: int | None, unit: str) -> None:
        """Tell whoever watches how far the stage is, at most once a second."""
        now = time.monotonic()
        if now - self.told >= PROGRESS_SECONDS:
            self.told = now
            with contextlib.suppress(OSError):  # a store that is away for a moment must not end the stage
                self.store.write_json(
                    f"partial/{self.fingerprint}/{PROGRESS_FILE}", {"done": done, "total": total, "unit": unit}
                )

    def json(self, name: str, value: Any) -> None:
        """Write JSON with sorted keys."""
        with self.file(name) as path:
            path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False))

    def leave(self, name: str) -> None:
        """Keep a file written before where it can be read although the stage fails: until it succeeds, or gc."""
        self.store.write_bytes(f"partial/{self.fingerprint}/{name}", self.path(name).read_bytes())

    def path(self, name: str) -> Path:
        """Local path of a file written before, for reading it again."""
        return self.store.local_file(f"objects/{self.fingerprint}/{self.attempt}/{name}", self.entries[name].sha256)

    def batches(self, name: str, rows: int = 8192) -> Iterator[pa.Table]:
        """A Parquet file written before, in parts of at most `rows` rows."""
        return parquet_batches(self.path(name), None, rows)

    def artifact(self, *, rows: int, measured: Mapping[str, Any] | None = None) -> Artifact:
        """End the stage: its handle, with what it measured."""
        self.measured = dict(measured or {})
        return Artifact(self.uri, self.fingerprint, self.stage, rows)
