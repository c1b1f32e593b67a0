"""The command `quarantine`: which samples a run rejected or flagged, and why."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from flows.console import print_whole
from flows.options import Json, StoreUri, Verbose
from flows.output import reporting
from flows.stored import default_store, open_to_read
from flows.tables import print_table
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.schema import QUARANTINE_FILE
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord, find_run

WRITERS = ("clean", "assign")
"""The stages that write quarantine rows."""


def quarantine(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id or its start.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Only this reason, such as truncated.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Rows to show at most; 0 for all.")] = 50,
    thumbnails: Annotated[
        Path | None,
        typer.Option("--thumbnails", metavar="FOLDER", help="Write the thumbnails of all these rows there."),
    ] = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the samples that a run rejected or flagged, with the reason."""
    with reporting(json=json, verbose=verbose, empty={"rows": []}) as out:
        opened = open_to_read(store or default_store())
        record = find_run(opened, run_id)
        if thumbnails:
            _make_empty(thumbnails)
        counts: Counter[tuple[str, str]] = Counter()
        shown: list[dict[str, Any]] = []
        written = 0
        for row in _rows(opened, record):
            counts[row["severity"], row["reason"]] += 1
            thumbnail = row.pop("thumbnail")
            if reason not in (None, row["reason"]):
                continue
            if thumbnails and thumbnail:
                _write_thumbnail(thumbnails, row, thumbnail)
                written += 1
            if not limit or len(shown) < limit:
                shown.append(row)
        broken = _broken(record)
        if reason and not broken and reason not in {name for _, name in counts}:
            found = ", ".join(sorted({name for _, name in counts})) or "none"
            raise RequestError(f"--reason {reason}: run {record.run_id} has no such row; there are: {found}")
        columns = ["severity", "reason", "stage", "source", "detail"]
        if shown:
            print_table(out.console, columns, [[str(row[name] or "") for name in columns] for row in shown])
        said = ", ".join(f"{count:,} {name} ({severity})" for (severity, name), count in counts.most_common())
        if said or not broken:
            print_whole(out.console, f"run {record.run_id}: {said or 'nothing is in quarantine'}")
        wanted = sum(count for (_, name), count in counts.items() if reason in (None, name))
        if wanted > len(shown):
            print_whole(out.console, f"{len(shown):,} of {wanted:,} shown; --limit 0 shows all")
        if thumbnails:
            print_whole(out.console, f"{written:,} thumbnails in {thumbnails}")
        out.result(
            {
                "run_id": record.run_id,
                "counts": [{"severity": s, "reason": r, "rows": count} for (s, r), count in counts.most_common()],
                "rows": shown,
            }
        )
        if broken:
            out.failed(StageError(broken))


def _broken(record: RunRecord) -> str | None:
    """Which stage failed, and of what, where the run therefore has not written all its quarantine rows."""
    failed = next((stage for stage in record.stages if stage.status == "failed"), None)
    if failed is None or not any(s.name in WRITERS and s.status in ("failed", "skipped") for s in record.stages):
        return None
    return f"run {record.run_id}: {failed.name} failed, so there may be more: {failed.reason}"


def _rows(store: Store, record: RunRecord) -> Iterator[dict[str, Any]]:
    """The quarantine rows of all stages of the run that finished, and of one that found too many."""
    for stage in record.stages:
        manifest = store.find_manifest(stage.fingerprint) if stage.status in ("ran", "cached") else None
        if manifest and QUARANTINE_FILE in manifest.files:
            for batch in store.handle(manifest).batches(QUARANTINE_FILE, rows=1024):
                yield from batch.to_pylist()
        elif stage.status == "failed" and (left := store.read_bytes(f"partial/{stage.fingerprint}/{QUARANTINE_FILE}")):
            for part in pq.ParquetFile(io.BytesIO(left)).iter_batches(1024):
                yield from part.to_pylist()


def _make_empty(folder: Path) -> None:
    """Make the folder, or refuse one that holds something: it might be another run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RequestError(f"--thumbnails {folder}: the folder is not empty; name another")
    except OSError as error:
        raise RequestError(f"--thumbnails {folder}: cannot be written: {error}") from error


def _write_thumbnail(folder: Path, row: dict[str, Any], thumbnail: bytes) -> None:
    """A JPEG called after its row number and reason."""
    try:
        (folder / f"{row['row']:08d}-{row['stage']}-{row['reason']}.jpg").write_bytes(thumbnail)
    except OSError as error:
        raise RequestError(f"--thumbnails {folder}: cannot be written: {error}") from error
