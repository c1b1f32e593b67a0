"""Clean: decode every sample, put what is broken in quarantine, join duplicates and named groups."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config
from ssl_tasks.errors import StageError
from ssl_tasks.schema import (
    CONTENT_ID,
    GROUP_ID,
    GROUPS,
    GROUPS_FILE,
    LABEL,
    QUARANTINE,
    QUARANTINE_FILE,
    ROW,
    ROWS_FILE,
    SAMPLE_ID,
    SOURCE,
)
from ssl_tasks.shards import iterate
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.ingest import parts
from ssl_tasks.store import Output


class CleanConfig(Config):
    """What is refused, and how much of it a run bears."""

    error_budget: float = Field(0.01, ge=0, le=1)
    """Share of samples that may be rejected before the stage fails."""
    max_pixels: int = Field(100_000_000, gt=0)
    """Images: more are refused before they are decoded."""
    modality: str = "image"


def run(config: CleanConfig, out: Output, ingested: Artifact) -> Artifact:
    """Write `groups.parquet` (kept rows and their groups) and `quarantine.parquet`.

    Raises:
        StageError: more samples were rejected than the budget allows, or all of them.
    """
    modality = modalities.modality(config.modality)
    rows = ingested.table(ROWS_FILE, [ROW, SAMPLE_ID, CONTENT_ID, SOURCE, GROUP_ID, LABEL])
    rejected: list[dict[str, Any]] = []
    keys: list[str] = []
    kept = np.ones(rows.num_rows, bool)
    contents = rows[CONTENT_ID].to_pylist()
    for raw in iterate(ingested, "raw"):
        first = int(raw[ROW][0].as_py())
        for place, checked in enumerate(modality.check(raw, config), start=first):
            keys.append(checked.key or contents[place])
            if checked.reason:
                kept[place] = False
                rejected.append(_quarantined(rows, place, checked.reason, checked.detail))
    _hold_budget(config, rejected, rows.num_rows)
    groups = _groups(rows, kept, contents, keys)
    names = _group_names(groups, rows[SAMPLE_ID].to_pylist(), kept)
    out.table(GROUPS_FILE, pa.table([np.flatnonzero(kept), names], schema=GROUPS))
    out.table(QUARANTINE_FILE, pa.Table.from_pylist(rejected, schema=QUARANTINE))
    sizes = np.bincount(np.unique(groups[kept], return_inverse=True)[1])
    measured = {
        "rejected": len(rejected),
        "reasons": dict(sorted(Counter(row["reason"] for row in rejected).items())),
        "groups": len(sizes),
        "duplicates": int((sizes - 1).sum()),
        "largest_group": int(sizes.max()),
        "conflicting_labels": _conflicts(groups, kept, rows[LABEL].to_pylist()),
    }
    return out.artifact(rows=int(kept.sum()), measured=measured)


def _quarantined(rows: pa.Table, place: int, reason: str, detail: str | None) -> dict[str, Any]:
    identity = {name: rows[name][place].as_py() for name in (ROW, SAMPLE_ID, SOURCE)}
    return {**identity, "stage": "clean", "reason": reason, "detail": detail}


def _hold_budget(config: CleanConfig, rejected: list[dict[str, Any]], total: int) -> None:
    if len(rejected) <= config.error_budget * total and len(rejected) < total:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r["reason"] for r in rejected).most_common())
    examples = "; ".join(f"{r['source']}: {r['reason']} ({r['detail']})" for r in rejected[:3])
    advice = "" if len(rejected) == total else "; raise clean.error_budget to go on without them"
    raise StageError(
        f"clean: {len(rejected)} of {total} samples cannot be used ({reasons}); for example {examples}{advice}"
    )


def _groups(rows: pa.Table, kept: np.ndarray, contents: list[str], keys: list[str]) -> np.ndarray:
    """(N,) component numbers: kept rows joined by equal content, equal decoded content, or the user's group."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    named = rows[GROUP_ID].to_pylist()
    ends: list[np.ndarray] = []
    nodes = rows.num_rows
    for values in (contents, keys, named):
        codes = {value: number for number, value in enumerate(dict.fromkeys(values))}
        ends.append(
            np.array([nodes + codes[v] if v is not None and ok else -1 for v, ok in zip(values, kept, strict=True)])
        )
        nodes += len(codes)
    start = np.concatenate([np.flatnonzero(end >= 0) for end in ends])
    stop = np.concatenate([end[end >= 0] for end in ends])
    graph = coo_matrix((np.ones(len(start), np.int8), (start, stop)), shape=(nodes, nodes))
    components: np.ndarray = connected_components(graph, directed=False)[1]
    return components[: rows.num_rows]


def _group_names(groups: np.ndarray, sample_ids: list[str], kept: np.ndarray) -> list[str]:
    """A group is called after the least sample_id in it, so its name does not depend on the rows' order."""
    least: dict[int, str] = {}
    for place in np.flatnonzero(kept):
        group, name = int(groups[place]), sample_ids[place]
        least[group] = min(least.get(group, name), name)
    return [least[int(groups[place])] for place in np.flatnonzero(kept)]


def _conflicts(groups: np.ndarray, kept: np.ndarray, labels: list[str | None]) -> int:
    """How many groups hold samples with different labels."""
    seen: dict[int, set[str]] = {}
    for place in np.flatnonzero(kept):
        label = labels[place]
        if label is not None:
            seen.setdefault(int(groups[place]), set()).add(label)
    return sum(len(found) > 1 for found in seen.values())


STAGE = Stage("clean", CleanConfig, ("ingest",), run, parts=parts)
