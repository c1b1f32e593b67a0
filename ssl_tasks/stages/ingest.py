"""Ingest: read a folder or table as it is, give every sample an identity, pack raw content into shards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config, execution
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.schema import CONTENT_ID, LABEL, ROW, ROWS, ROWS_FILE, SAMPLE_ID, SOURCE, align
from ssl_tasks.shards import ShardWriter
from ssl_tasks.sources import find_files, listing_hash
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output

COLUMN_KEYS = ("label_column", "group_column", "domain_column", "split_column", "drop_columns")


class IngestConfig(Config):
    """Where the data is and, for tables, what its columns mean."""

    path: str = execution("builtin:digits", min_length=1)
    """Folder, file, or builtin:digits / builtin:cancer. Not hashed: the content is."""
    modality: str = "image"
    label_column: str | None = None
    group_column: str | None = None
    """Rows with equal values (patient, speaker, scene) never stand in different splits."""
    domain_column: str | None = None
    split_column: str | None = None
    drop_columns: list[str] = Field(default_factory=list)


def source(config: IngestConfig) -> str:
    """Content hash of what would be read; files that did not change are not read again."""
    root, files = _find(config)
    return listing_hash(root, files)


def run(config: IngestConfig, out: Output) -> Artifact:
    """Write `rows.parquet` and `raw/*.arrow`.

    Raises:
        RequestError: the path, a column or a file's format is wrong, or there are no rows.
        StageError: a file changed while it was read.
    """
    root, files = _find(config)
    before = listing_hash(root, files)
    count = labelled = 0
    classes: set[str] = set()
    raw_writer = ShardWriter(out, "raw")
    with out.writer(ROWS_FILE, ROWS) as rows_writer:
        for rows, raw in modalities.modality(config.modality).read(root, files, config):
            numbers = pa.array(np.arange(count, count + rows.num_rows), pa.int64())
            rows = rows.append_column(ROW, numbers).append_column(SAMPLE_ID, _sample_ids(rows))
            rows_writer.write_table(align(rows, ROWS))
            raw_writer.write(raw.add_column(0, ROW, numbers))
            count += rows.num_rows
            if LABEL in rows.column_names:
                classes.update(pc.unique(rows[LABEL]).drop_null().to_pylist())
                labelled += rows.num_rows - rows[LABEL].null_count
        raw_writer.flush()
    if not count:
        raise RequestError(f"ingest.path: {config.path} has no rows")
    if listing_hash(root, _find(config)[1]) != before:
        raise StageError(f"ingest.path: files below {root} changed while they were read; run again when they rest")
    measured: dict[str, Any] = {
        "modality": config.modality,
        "files": len(files),
        "labelled": labelled,
        "classes": sorted(classes),
        "source": str(root),
    }
    return out.artifact(rows=count, measured=measured)


def _find(config: IngestConfig) -> tuple[Path, list[Path]]:
    """The root folder and the files to read; refuses keys that mean nothing for the modality."""
    suffixes = modalities.SUFFIXES[modalities.require(config.modality)]
    for key in COLUMN_KEYS:
        if getattr(config, key) and config.modality not in modalities.WITH_COLUMNS:
            raise RequestError(f"ingest.{key}: is for tables, and ingest.modality is {config.modality!r}; leave it out")
    return find_files(config.path, suffixes)


def _sample_ids(rows: pa.Table) -> pa.Array:
    """128 bits of content and source together: unique, and the same wherever the folder stands."""
    pairs = zip(rows[CONTENT_ID].to_pylist(), rows[SOURCE].to_pylist(), strict=True)
    hashes = [hashlib.blake2b(f"{content} {where}".encode(), digest_size=16).hexdigest() for content, where in pairs]
    return pa.array(hashes, pa.string())


def parts(config: Any) -> dict[str, int]:
    """Version of the modality that a config chooses."""
    return {config.modality: modalities.VERSIONS[modalities.require(config.modality)]}


STAGE = Stage("ingest", IngestConfig, (), run, parts=parts, source=source)
