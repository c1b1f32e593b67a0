"""Contamination: test rows that the encoder has seen in pretraining, equal or nearly so.

A score on such rows says what was remembered. Of an encoder of ours the store knows every row that it was pretrained
on, and those of the encoder that it began from; of one from elsewhere nobody knows, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.overlap import Some, comparable, overlap
from ssl_tasks.cleaning.quarantine import identity_of
from ssl_tasks.config import Config, artifact_references
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import CONTAMINATION, CONTAMINATION_FILE, ROW, SOURCE, SPLIT, SPLITS_FILE, TEST, TRAIN
from ssl_tasks.stages.adopt import ROLE
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.store import Output
from ssl_tasks.store.references import find, parent

KEY = "contamination"


class ContaminationConfig(Config):
    """What the section `transfer` says of encoders; `clean.near_duplicates` says what counts as nearly equal."""

    encoders: tuple[str, ...] = artifact_references()
    """Further ones, which have seen data too."""


@dataclass(frozen=True)
class Seen:
    """Rows that an encoder was pretrained on."""

    encoder: Artifact
    ingested: Artifact
    rows: Some


def run(config: ContaminationConfig, out: Output, ingested: Artifact, cleaned: Artifact, split: Artifact,
        adopted: Artifact) -> Artifact:  # fmt: skip
    """Write `contamination.parquet`: each test row that was seen, and the most alike row of each pretraining."""
    tested = Some(cleaned, _rows(split, TEST))
    threshold = _threshold(cleaned)
    tables: list[pa.Table] = []
    checked: list[dict[str, Any]] = []
    unknown: list[str] = []
    others = [find(reference, out.uri, key="transfer.encoders", stage="pretrain") for reference in config.encoders]
    out.read.update({f"encoder {place}": one.fingerprint for place, one in enumerate(others, start=1)})
    for seen in (one for encoder in (adopted, *others) for one in pretrained_on(encoder)):
        if isinstance(seen, str):
            unknown.append(seen)
        elif not comparable(seen.rows.cleaned, cleaned):
            unknown.append(f"the data of {_short(seen.encoder)} was examined by another version of clean")
        else:
            tables.append(_table(seen, tested, ingested, threshold))
            checked.append({"encoder": seen.encoder.fingerprint, "rows": len(seen.rows.rows)})
    found = pa.concat_tables(tables or [CONTAMINATION.empty_table()])
    out.table(CONTAMINATION_FILE, found)
    measured = _measured(found, len(tested.rows), checked, unknown, threshold)
    return out.artifact(rows=found.num_rows, measured=measured)


def pretrained_on(encoder: Artifact) -> Iterator[Seen | str]:
    """What an adopted or pretrained encoder has seen, back through those that it began from; a reason where unknown."""
    manifest = encoder.manifest
    if manifest.stage == "adopt" and manifest.measured.get("origin") != "ours":
        yield f"nobody here knows what {manifest.measured.get('method')} was pretrained on"
        return
    try:
        if manifest.stage == "adopt":
            yield from pretrained_on(
                find(manifest.parents[ROLE], manifest.measured["store"], key=KEY, stage="pretrain")
            )
            return
        yield _seen(encoder)
        if "init_from" in manifest.parents:
            yield from pretrained_on(parent(encoder, "init_from", key=KEY))
    except RequestError as error:  # a store that is not at hand, or that was cleaned up
        yield f"what {_short(encoder)} was pretrained on is not to be found: {str(error).removeprefix(f'{KEY}: ')}"


def _seen(encoder: Artifact) -> Seen:
    split = parent(encoder, "split", key=KEY)
    assigned = parent(split, "assign", key=KEY)
    cleaned = parent(assigned, "clean", key=KEY)
    return Seen(encoder, parent(cleaned, "ingest", key=KEY), Some(cleaned, _rows(split, TRAIN)))


def _rows(split: Artifact, name: str) -> NDArray[np.int64]:
    table = split.table(SPLITS_FILE, [ROW, SPLIT])
    rows: NDArray[np.int64] = table.filter(pc.equal(table[SPLIT], name))[ROW].to_numpy()
    return rows


def _threshold(cleaned: Artifact) -> float | None:
    default = CleanConfig.model_fields["near_duplicates"].default
    value: float | None = cleaned.manifest.config.get("near_duplicates", default)
    return value


def _table(seen: Seen, tested: Some, ingested: Artifact, threshold: float | None) -> pa.Table:
    found = overlap(seen.rows, tested, threshold)
    columns = {
        ROW: found.tested,
        SOURCE: identity_of(ingested, found.tested, [SOURCE])[SOURCE],
        "encoder": pa.repeat(pa.scalar(seen.encoder.fingerprint), len(found.tested)),
        "other": found.seen,
        "other_source": _sources(seen.ingested, found.seen),
        "kind": np.where(found.equal, "equal", "near"),
        "similarity": found.similarity,
    }
    return pa.table([columns[name] for name in CONTAMINATION.names], schema=CONTAMINATION)


def _sources(ingested: Artifact, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """Of rows in any order, some of them twice."""
    known, place = np.unique(rows, return_inverse=True)
    return identity_of(ingested, known, [SOURCE])[SOURCE].take(pa.array(place))


def _measured(
    found: pa.Table, test_rows: int, checked: list[dict[str, Any]], unknown: list[str], threshold: float | None
) -> dict[str, Any]:
    equal = set(found.filter(pc.equal(found["kind"], "equal"))[ROW].to_pylist())
    near = set(found[ROW].to_pylist()) - equal
    measured = {
        "test_rows": test_rows,
        "equal": len(equal),
        "near": len(near),
        "near_duplicates": threshold,
        "checked": checked,
        "unknown": unknown,
    }
    seen = len(equal) + len(near)
    if seen:
        measured["warnings"] = [
            f"{seen:,} of {test_rows:,} test rows are in the data that the encoder was pretrained on "
            f"({len(equal):,} equal, {len(near):,} nearly so): scores on them say what it remembers"
        ]
    return measured


def _short(encoder: Artifact) -> str:
    return f"the encoder {encoder.fingerprint[:12]}"


STAGE = Stage("contamination", ContaminationConfig, ("ingest", "clean", "split", "adopt"), run, section="transfer")
