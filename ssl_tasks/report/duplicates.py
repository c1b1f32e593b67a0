"""Duplicates side by side: first those that are in quarantine for it, then the near ones that are least alike."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.quarantine import identity_of
from ssl_tasks.report.pictures import Pictures, data_uri
from ssl_tasks.schema import DUPLICATES_FILE, LABEL, QUARANTINE_FILE, ROW, SOURCE
from ssl_tasks.shards import member

PAIRS, CANDIDATES = 6, 60
"""Pairs that are shown, and those of each kind that they are chosen from."""
PICTURE_SIDE = 96
CONFLICT, OUTRANKED = "conflicting_label", "duplicate_of_"
"""Reasons in quarantine, the second up to the split's name, that speak of a row's duplicate."""


@dataclass(frozen=True)
class Pair:
    """Two rows that are equal or nearly so."""

    row: int
    other: int
    kind: str
    similarity: float
    reason: str = ""
    """Why one of them is in quarantine, where it is."""


def section(inputs: Mapping[str, Artifact], kept: np.ndarray, pictures: Pictures | None) -> list[dict[str, Any]]:
    """A line for each pair, for the template; empty where there are none.

    Args:
        kept: (N,) row numbers of the payload, ascending.
    """
    clean = inputs["clean"]
    if DUPLICATES_FILE not in clean.names():
        return []
    pairs = chosen(clean, _reasons(inputs))
    rows = np.unique(np.array([row for pair in pairs for row in (pair.row, pair.other)], np.int64))
    if not len(rows):
        return []
    known = identity_of(inputs["ingest"], rows, [ROW, SOURCE, LABEL]).to_pylist()
    images = _images(inputs, rows, kept, pictures)
    sides = {one[ROW]: {"source": one[SOURCE], "label": one[LABEL], "image": images.get(one[ROW])} for one in known}
    return [
        {
            "near": pair.kind == "near",
            "kind": "equal" if pair.kind == "equal" else f"{math.floor(100 * pair.similarity) / 100:.2f} alike",
            "reason": pair.reason.replace("_", " "),
            "sides": [sides[pair.row], sides[pair.other]],
        }
        for pair in pairs
    ]


def chosen(clean: Artifact, reasons: Mapping[int, str]) -> list[Pair]:
    """At most `PAIRS`, no row in two of them; the file may hold millions, so it is read in parts.

    Args:
        reasons: of the rows in quarantine.
    """
    flagged: list[Pair] = []
    near: list[Pair] = []
    equal: list[Pair] = []
    wanted = np.array(sorted(reasons), np.int64)
    for batch in clean.batches(DUPLICATES_FILE):
        hit = member(batch[ROW].to_numpy(), wanted) | member(batch["other"].to_numpy(), wanted)
        is_near = (batch["kind"].to_numpy() == "near") & ~hit
        flagged = _first([*flagged, *_pairs(batch, np.flatnonzero(hit), reasons)])
        near = _first([*near, *_pairs(batch, _least_alike(batch, is_near), {})])
        equal = _first([*equal, *_pairs(batch, _least_alike(batch, ~is_near & ~hit), {})])
    return _apart([*flagged, *near, *equal])


def _first(pairs: Sequence[Pair]) -> list[Pair]:
    """Contradictory labels first, then the least alike."""
    return heapq.nsmallest(
        CANDIDATES, pairs, key=lambda pair: (pair.reason != CONFLICT, pair.similarity, pair.row, pair.other)
    )


def _least_alike(batch: pa.Table, here: np.ndarray) -> np.ndarray:
    """Places of so many lines of a batch as can be needed: most are never turned into Python objects."""
    places = np.flatnonzero(here)
    least: np.ndarray = places[np.argsort(batch["similarity"].to_numpy()[places], kind="stable")[:CANDIDATES]]
    return least


def _pairs(batch: pa.Table, places: np.ndarray, reasons: Mapping[int, str]) -> list[Pair]:
    return [
        Pair(reason=reasons.get(line[ROW]) or reasons.get(line["other"], ""), **line)
        for line in batch.take(pa.array(places)).to_pylist()
    ]


def _apart(pairs: Sequence[Pair]) -> list[Pair]:
    """The first ones of which none shares a row with one before it: a sample that is there ten times is one example."""
    shown: set[int] = set()
    found: list[Pair] = []
    for pair in pairs:
        if len(found) < PAIRS and not shown & {pair.row, pair.other}:
            shown |= {pair.row, pair.other}
            found.append(pair)
    return found


def _reasons(inputs: Mapping[str, Artifact]) -> dict[int, str]:
    """Rows that are in quarantine for what they are a duplicate of."""
    return {
        row: reason
        for name in ("clean", "assign")
        for batch in inputs[name].batches(QUARANTINE_FILE, [ROW, "reason"])
        for row, reason in zip(batch[ROW].to_pylist(), batch["reason"].to_pylist(), strict=True)
        if reason == CONFLICT or reason.startswith(OUTRANKED)
    }


def _images(
    inputs: Mapping[str, Artifact], rows: np.ndarray, kept: np.ndarray, pictures: Pictures | None
) -> dict[int, str]:
    """Data URIs by row: from the payload, or from quarantine where a row did not get that far."""
    if pictures is None:
        return {}
    stored = member(rows, kept)
    images = pictures.take(np.searchsorted(kept, rows[stored]), PICTURE_SIDE)
    found = dict(zip(rows[stored].tolist(), images, strict=True))
    missing = rows[~stored]
    for name in ("clean", "assign") if len(missing) else ():
        for batch in inputs[name].batches(QUARANTINE_FILE, [ROW, "thumbnail"], rows=1024):
            for line in batch.filter(pa.array(member(batch[ROW].to_numpy(), missing))).to_pylist():
                if line["thumbnail"]:
                    found[line[ROW]] = data_uri(line["thumbnail"])
    return found
