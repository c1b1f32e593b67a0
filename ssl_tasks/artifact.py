"""Artifacts: what passes between stages. A handle is small; the data stays in the store.

artifact = store.lookup(fingerprint)
artifact.table("rows.parquet").num_rows
artifact.manifest.measured["modality"]
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from ssl_tasks.config import digest

if TYPE_CHECKING:
    from ssl_tasks.store import Store


class FileEntry(BaseModel):
    """One file of an artifact. A rendering (HTML, PNG) may hold times and is no part of the data checksum."""

    model_config = ConfigDict(frozen=True)
    bytes: int
    sha256: str
    rendering: bool = False


class Manifest(BaseModel):
    """What `objects/<fingerprint>/manifest.json` says. It is written last: where it exists, the data is whole."""

    model_config = ConfigDict(frozen=True)
    fingerprint: str
    attempt: str
    stage: str
    versions: dict[str, int]
    config: dict[str, Any]
    """Semantic fields that differ from their defaults, as hashed."""
    parents: dict[str, str]
    """Fingerprints by the parent stage's name, or by role for what was read besides (`init_from`)."""
    rows: int
    files: dict[str, FileEntry]
    measured: dict[str, Any]
    schemas: dict[str, str] = {}
    """Arrow schema, as text, of each table and shard family."""
    started: float
    seconds: float
    libraries: dict[str, str]

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def data_checksum(self) -> str:
        """Equal for two artifacts exactly where their data files are equal."""
        return digest({name: entry.sha256 for name, entry in self.files.items() if not entry.rendering})


@dataclass(frozen=True)
class Artifact:
    """A handle: where an artifact is and how many rows it has."""

    uri: str
    """URI of the store, without the fingerprint."""
    fingerprint: str
    stage: str
    rows: int

    @property
    def store(self) -> Store:
        """The store that holds this artifact, opened once per process."""
        return _store(self.uri)

    @property
    def location(self) -> str:
        """Full URI of the artifact's folder."""
        return f"{self.uri.rstrip('/')}/objects/{self.fingerprint}"

    @property
    def manifest(self) -> Manifest:
        """The manifest, read once per process and attempt."""
        return self.store.manifest(self.fingerprint)

    @property
    def measured(self) -> dict[str, Any]:
        """What the stage measured."""
        return self.manifest.measured

    def path(self, name: str) -> Path:
        """Local path of one file; on object storage a copy in this node's bounded cache."""
        return self.store.local_path(self, name)

    def names(self, prefix: str = "") -> list[str]:
        """File names below `prefix`, sorted."""
        return sorted(name for name in self.manifest.files if name.startswith(prefix))

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file as an Arrow table."""
        with pq.ParquetFile(self.path(name)) as file:  # read_table imports pandas, 1 s and more
            return file.read(columns=columns)

    def batches(self, name: str, columns: list[str] | None = None, rows: int = 8192) -> Iterator[pa.Table]:
        """A Parquet file in parts of at most `rows` rows: memory stays flat however long the table is."""
        return parquet_batches(self.path(name), columns, rows)

    def json(self, name: str) -> Any:
        """A JSON file."""
        return json.loads(self.path(name).read_text())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for Prefect and for Ray."""
        return asdict(self)


def parquet_batches(path: Path, columns: list[str] | None, rows: int) -> Iterator[pa.Table]:
    """See `Artifact.batches`."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])


class Cursor:
    """Takes as many rows as asked from a stream of tables: for walking two files side by side."""

    def __init__(self, batches: Iterator[pa.Table]) -> None:
        self._batches = batches
        self._rest: list[pa.Table] = []

    def take(self, count: int) -> pa.Table:
        """The next `count` rows, or what is left."""
        have = sum(table.num_rows for table in self._rest)
        while have < count and (batch := next(self._batches, None)) is not None:
            self._rest.append(batch)
            have += batch.num_rows
        whole = pa.concat_tables(self._rest)
        self._rest = [whole.slice(count)]
        return whole.slice(0, count)


@functools.lru_cache(maxsize=8)
def _store(uri: str) -> Store:
    from ssl_tasks.store import Store  # the store imports this module

    return Store.open(uri)
