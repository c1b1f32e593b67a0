"""Which test rows encoders have seen in pretraining: the store leads from an encoder back to the rows it saw.

found = search(encoder_artifacts, Some(cleaned, test_rows), ingested)
found.measured["equal"], found.table
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.adoption.reference import ROLE
from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.overlap import Some, comparable, overlap
from ssl_tasks.cleaning.quarantine import identity_of
from ssl_tasks.config import digest
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import CONTAMINATION, ROW, SOURCE, SPLIT, SPLITS_FILE, TRAIN
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.store.references import find, parent

KEY = "contamination"
OURS = "ours"


@dataclass(frozen=True)
class Seen:
    """Rows that an encoder was pretrained on."""

    encoder: Artifact
    split: Artifact
    ingested: Artifact
    cleaned: Artifact

    @property
    def rows(self) -> Some:
        """Read from the split each time."""
        return Some(self.cleaned, rows_of(self.split, TRAIN))


@dataclass(frozen=True)
class Contamination:
    """What was found."""

    table: pa.Table
    """`schema.CONTAMINATION`: of each test row that was seen, the most alike row of each pretraining."""
    measured: dict[str, Any]
    """Counts, what was checked, and what could not be."""


def search(encoders: Iterable[Artifact | str], tested: Some, ingested: Artifact) -> Contamination:
    """Seek `tested` among what encoders were pretrained on.

    Args:
        encoders: pretrain or adopt artifacts, or why one is not at hand.
        ingested: the samples of `tested`.
    """
    threshold = _threshold(tested.cleaned)
    tables: list[pa.Table] = []
    checked: dict[str, int] = {}
    unknown: list[str] = []
    for seen in (one for encoder in encoders for one in pretrained_on(encoder)):
        if isinstance(seen, str):
            unknown.append(seen)
        elif seen.encoder.fingerprint in checked:  # two encoders that began from one
            continue
        elif not comparable(seen.cleaned, tested.cleaned):
            unknown.append(f"the data of {_short(seen.encoder)} was examined by another version of clean")
        else:
            rows = seen.rows
            tables.append(_table(seen, rows, tested, ingested, threshold))
            checked[seen.encoder.fingerprint] = len(rows.rows)
    found = pa.concat_tables(tables or [CONTAMINATION.empty_table()])
    told = [{"encoder": fingerprint, "rows": rows} for fingerprint, rows in checked.items()]
    return Contamination(found, _measured(found, len(tested.rows), told, unknown, threshold))


def pretrained_on(encoder: Artifact | str) -> Iterator[Seen | str]:
    """What an adopted or pretrained encoder has seen, back through those that it began from; a reason where unknown."""
    if isinstance(encoder, str):
        yield encoder
        return
    manifest = encoder.manifest
    if manifest.stage == "adopt" and manifest.measured.get("origin") != OURS:
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
    return Seen(encoder, split, parent(cleaned, "ingest", key=KEY), cleaned)


def absent(encoders: Iterable[Artifact | str]) -> str | None:
    """A hash of what is not at hand of that which encoders were pretrained on, as it is told; None where all is, or
    where all that there is to know is known.

    Args:
        encoders: as for `search`.
    """
    known = [one for one in encoders if isinstance(one, str) or one.manifest.measured.get("origin", OURS) == OURS]
    told = [seen for encoder in known for seen in pretrained_on(encoder) if isinstance(seen, str)]
    return digest(told) if told else None


def rows_of(split: Artifact, name: str) -> NDArray[np.int64]:
    """Row numbers of one split, ascending."""
    table = split.table(SPLITS_FILE, [ROW, SPLIT])
    rows: NDArray[np.int64] = table.filter(pc.equal(table[SPLIT], name))[ROW].to_numpy()
    return rows


def _threshold(cleaned: Artifact) -> float | None:
    default = CleanConfig.model_fields["near_duplicates"].default
    value: float | None = cleaned.manifest.config.get("near_duplicates", default)
    return value


def _table(seen: Seen, rows: Some, tested: Some, ingested: Artifact, threshold: float | None) -> pa.Table:
    found = overlap(rows, tested, threshold)
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
