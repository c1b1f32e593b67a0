"""Examine every sample once: what cannot be used goes to quarantine, of the others keys, measures and prints stay."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact, Cursor
from ssl_tasks.cleaning import careful
from ssl_tasks.cleaning.families import Families
from ssl_tasks.cleaning.groups import key_of
from ssl_tasks.cleaning.quarantine import IDENTITY, Found, Quarantine
from ssl_tasks.cleaning.targets import BATCH_ROWS, bad_targets, wanted
from ssl_tasks.schema import CONTENT_ID, FLAGGED, MEASURES_FILE, ROW, ROWS_FILE, TEXT
from ssl_tasks.shards import ShardWriter, in_parts, iterate, tensor_array
from ssl_tasks.store import Output

if TYPE_CHECKING:
    from ssl_tasks.modalities.base import Checked, Modality  # imports torch

PRINTS, PRINT, SIGNATURE = "prints", "print", "signature"
NO_CAPTION = "ingest.captions asks for a text with every image"
PART_ROWS = 1024
"""Examined at once: what is measured of a sample may be larger than the sample."""


@dataclass(frozen=True)
class Scanned:
    """By row number of the ingest artifact."""

    kept: NDArray[np.bool_]
    examined: NDArray[np.bool_]
    """Those that have measures and prints: the kept ones, and those that were rejected as unlike them or for want of a
    caption, or of a mask or boxes that go with them."""
    keys: NDArray[np.uint64]
    """Of the decoded content, or of the raw bytes where a modality gives none."""


def scan(ingested: Artifact, modality: Modality, config: Any, out: Output, quarantine: Quarantine) -> Scanned:
    """Write `measures.parquet` and `prints/*.arrow` of the rows that can be used, as far as the modality makes them.

    Which of them go together is known at the end.

    Args:
        config: the clean stage's.
    """
    kept, keys = np.ones(ingested.rows, bool), np.zeros(ingested.rows, np.uint64)
    no_caption, bad_target = np.zeros((2, ingested.rows), bool)
    targets = wanted(config)
    columns = [*IDENTITY, CONTENT_ID, *([TEXT] if config.captions else []), *targets]
    batches = ingested.batches(ROWS_FILE, columns, **({"rows": BATCH_ROWS} if targets else {}))
    identities = Cursor(batches)
    families = Families(ingested.rows)
    measures: pq.ParquetWriter | None = None
    prints = ShardWriter(out, PRINTS)
    with contextlib.ExitStack() as files, careful.notes(out) as notes:
        for raw in (part for shard in iterate(ingested, "raw") for part in in_parts(shard, PART_ROWS)):
            rows = raw[ROW].chunk(0).to_numpy()
            identity = identities.take(len(rows))
            crashing = careful.crashing(modality, raw, config) if int(rows[0]) in notes.deadly else []
            raw = careful.without(raw, crashing)
            notes.examining(int(rows[0]))
            checked = modality.check(raw, config)
            for place in crashing:
                checked.reasons[place], checked.details[place] = careful.CRASHES, "reading it ends the process"
            kept[rows] = usable = np.array([reason is None for reason in checked.reasons], bool)
            keys[rows] = _keys(checked, identity)
            if config.captions:
                no_caption[rows] = usable & pc.is_null(identity[TEXT]).to_numpy()
            bad = bad_targets(raw, identity, checked, usable) if targets else {}
            bad_target[rows[list(bad)]] = True
            _to_quarantine(quarantine, modality, raw, identity, checked, no_caption[rows], bad)
            if checked.measures is not None:
                table = checked.measures.add_column(0, ROW, pa.array(rows[usable], pa.int64()))
                measures = measures or files.enter_context(out.writer(MEASURES_FILE, table.schema))
                measures.write_table(table)
            if checked.kinds is not None:
                families.see(rows[usable], checked.kinds)
            _write_prints(prints, rows[usable], checked)
            out.progress(int(rows[-1]) + 1, ingested.rows, "samples")
    prints.flush()
    quarantine.add_rows(ingested, modality, families.found(f"{modality.name}s"))
    return Scanned(kept & ~families.unlike() & ~no_caption & ~bad_target, kept, keys)


def _keys(checked: Checked, identity: pa.Table) -> NDArray[np.uint64]:
    raw = identity[CONTENT_ID].to_pylist()
    hashes = [bytes.fromhex(name) if key is None else key for key, name in zip(checked.keys, raw, strict=True)]
    return np.array([key_of(key) for key in hashes], np.uint64)


def _to_quarantine(
    quarantine: Quarantine,
    modality: Modality,
    raw: pa.Table,
    identity: pa.Table,
    checked: Checked,
    no_caption: NDArray[np.bool_],
    bad_targets: dict[int, Found],
) -> None:
    found = {
        place: Found(reason, detail)
        for place, (reason, detail) in enumerate(zip(checked.reasons, checked.details, strict=True))
        if reason is not None
    }
    found |= {int(place): Found("no_caption", NO_CAPTION) for place in np.flatnonzero(no_caption)}
    found |= bad_targets
    found |= {
        place: Found("odd_file", oddity, FLAGGED)
        for place, oddity in enumerate(checked.oddities)
        if oddity is not None and place not in found
    }
    places = sorted(found)
    if places:
        thumbnails = modality.thumbnails(raw.take(places))
        quarantine.add(identity.take(places), [found[place] for place in places], thumbnails)


def _write_prints(writer: ShardWriter, rows: NDArray[np.int64], checked: Checked) -> None:
    if checked.prints is None or checked.signatures is None or not len(rows):
        return
    columns = {ROW: rows, PRINT: tensor_array(checked.prints), SIGNATURE: tensor_array(checked.signatures)}
    writer.write(pa.table(columns))
