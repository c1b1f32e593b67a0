"""Ingest: read what there is at a path as it is, give every sample an identity, pack raw content into shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import (
    BOXES,
    CONTENT_ID,
    LABEL,
    LABELS,
    MASK,
    NUMBER,
    ROW,
    ROWS,
    ROWS_FILE,
    SAMPLE_ID,
    SOURCE,
    align,
)
from ssl_tasks.shards import ShardWriter
from ssl_tasks.sources.base import Source
from ssl_tasks.sources.config import SourceConfig
from ssl_tasks.sources.detect import open_source
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output

MAX_CLASSES = 10_000
DENSE_KEYS = {MASK: "masks", BOXES: "boxes"}
"""The config's key for each column of targets that say where things are in an image."""
GROUP_ROWS, GROUP_BYTES = 16_384, 32 << 20
"""Of one row group of `rows.parquet`; small ones would cost readers a footer of gigabytes for many rows."""


class IngestConfig(SourceConfig):
    """Where the data is, of what kind its samples are, and what its folders and columns mean."""

    modality: str = "image"


def source(config: IngestConfig) -> str:
    """Content hash of what would be read; files that did not change are not read again."""
    return _open(config).listing_hash()


def run(config: IngestConfig, out: Output) -> Artifact:
    """Write `rows.parquet` and `raw/*.arrow`.

    Raises:
        RequestError: the path, a column or a file's format is wrong, or there are no rows.
        StageError: a file changed while it was read.
    """
    found = _open(config)
    total = found.total()
    counts = _Counts([name for name, wanted in ((MASK, config.masks), (BOXES, config.boxes)) if wanted])
    raw_writer = ShardWriter(out, "raw")
    with out.writer(ROWS_FILE, ROWS) as parquet, _Groups(parquet) as rows_writer:
        for rows, raw in modalities.modality(config.modality).read(found, config):
            numbers = pa.array(np.arange(counts.rows, counts.rows + rows.num_rows), pa.int64())
            rows = rows.append_column(ROW, numbers).append_column(SAMPLE_ID, _sample_ids(rows))
            rows_writer.write(align(rows, ROWS))
            raw_writer.write(raw.add_column(0, ROW, numbers))
            counts.add(rows)
            out.progress(counts.rows, total, found.unit)
        raw_writer.flush()
    if not counts.rows:
        raise RequestError(f"ingest.path: {config.path} has no rows")
    for name, count in counts.dense.items():
        if not count:
            key = DENSE_KEYS[name]
            raise RequestError(
                f"ingest.{key}: none of the {counts.rows:,} images at {config.path} has {key}; leave it out"
            )
    measured = {"modality": config.modality, "source": str(found.root), **found.facts(), **counts.measured()}
    return out.artifact(rows=counts.rows, measured=measured)


def _open(config: IngestConfig) -> Source:
    modality = modalities.require(config.modality)
    features = modality in modalities.OF_FEATURES
    return open_source(config, modalities.SUFFIXES[modality], features=features)


class _Groups:
    """Collects rows until they make a row group worth writing."""

    def __init__(self, parquet: pq.ParquetWriter) -> None:
        self._parquet = parquet
        self._pending: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, rows: pa.Table) -> None:
        self._pending.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._parquet.write_table(pa.concat_tables(self._pending))
        self._pending, self._rows, self._bytes = [], 0, 0

    def __enter__(self) -> _Groups:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()


class _Counts:
    """What the rows have in common, bounded however many there are."""

    def __init__(self, dense: Iterable[str] = ()) -> None:
        self.rows = 0
        self.dense = dict.fromkeys(dense, 0)
        """By column of masks or boxes, the rows that have a value."""
        self._labelled = {LABEL: 0, LABELS: 0}
        self._numbered: int | None = None
        self._classes: set[str] = set()
        self._more = False

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        for name in self.dense.keys() & set(rows.column_names):
            self.dense[name] += rows.num_rows - rows[name].null_count
        if NUMBER in rows.column_names:
            self._numbered = (self._numbered or 0) + rows.num_rows - rows[NUMBER].null_count
        for name in self._labelled.keys() & set(rows.column_names):
            column = rows[name]
            self._labelled[name] += rows.num_rows - column.null_count
            values = pc.list_flatten(column) if name == LABELS else column
            for value in pc.unique(values).drop_null().to_pylist():
                if value in self._classes or len(self._classes) < MAX_CLASSES:
                    self._classes.add(value)
                else:
                    self._more = True

    def measured(self) -> dict[str, Any]:
        """Classes stand there as far as they are few; `more_classes` says that there are others.

        `numbered` counts rows with a number, where a column of numbers is named.
        """
        return {
            **({} if self._numbered is None else {"numbered": self._numbered}),
            "labelled": self._labelled[LABEL],
            "multi_labelled": self._labelled[LABELS],
            "classes": sorted(self._classes),
            "more_classes": self._more,
            **{DENSE_KEYS[name]: count for name, count in self.dense.items()},
        }


def _sample_ids(rows: pa.Table) -> pa.Array:
    """128 bits of content and source together: unique, and the same wherever the folder stands."""
    pairs = zip(rows[CONTENT_ID].to_pylist(), rows[SOURCE].to_pylist(), strict=True)
    hashes = [hashlib.blake2b(f"{content} {where}".encode(), digest_size=16).hexdigest() for content, where in pairs]
    return pa.array(hashes, pa.string())


def parts(config: Any) -> dict[str, int]:
    """Version of the modality that a config chooses."""
    return {config.modality: modalities.VERSIONS[modalities.require(config.modality)]}


STAGE = Stage("ingest", IngestConfig, (), run, version=3, parts=parts, source=source)
