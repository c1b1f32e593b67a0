"""Clean: examine every sample, put what cannot be used in quarantine, join duplicates and named groups."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.duplicates import Duplicates, conflicts, find_duplicates
from ssl_tasks.cleaning.groups import Sets, connect, named_pairs, write_groups
from ssl_tasks.cleaning.outliers import Outliers
from ssl_tasks.cleaning.quarantine import Found, Quarantine
from ssl_tasks.cleaning.scan import scan
from ssl_tasks.config import Config
from ssl_tasks.errors import StageError
from ssl_tasks.schema import FLAGGED, MEASURES_FILE, OUTLIERS, OUTLIERS_FILE, QUARANTINE, QUARANTINE_FILE, REJECTED, ROW
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.ingest import parts
from ssl_tasks.store import Output

LARGE_SHARE, LARGE_ROWS = 0.05, 20
"""A set of duplicates that holds more of the samples than this, and at least so many, is worth a warning."""


class CleanConfig(Config):
    """What is refused, how much of it a run bears, and what counts as the same."""

    error_budget: float = Field(0.01, ge=0, le=1)
    """Share of samples that may be rejected before the stage fails. Images whose channels or depth do not go with those
    of most others (floats among integers, four channels among three) are rejected too."""
    near_duplicates: float | None = Field(0.9, gt=0, le=1)
    """Images: how alike two are that must stand in one split (1 is equal); null joins equal ones only."""
    max_pixels: int = Field(100_000_000, gt=0)
    """Images: more are refused before they are decoded."""
    min_side: int = Field(4, ge=1)
    """Images: least width and height in pixels."""
    max_aspect: float = Field(10.0, ge=1)
    """Images: the longer side over the shorter."""
    min_contrast: float = Field(0.01, ge=0, lt=1)
    """Images of uint8: least difference between the darkest and the brightest value, as a share of white. Deeper ones,
    whose white nobody knows, are refused only where all their values are equal."""
    outlier_deviations: float = Field(5.0, gt=0)
    """Images: flagged where a measure lies further from the median, in robust deviations."""
    captions: bool = False
    """Images without a caption are rejected."""
    masks: bool = False
    """Images whose mask cannot be read, or does not lie on them, are rejected."""
    boxes: bool = False
    """Images with a box that is empty or lies outside are rejected."""
    modality: str = "image"


def run(config: CleanConfig, out: Output, ingested: Artifact) -> Artifact:
    """Write which rows are kept and in which group, duplicates, quarantine, measures.

    Files: `groups.parquet`, `duplicates.parquet`, `quarantine.parquet`; where the modality measures its samples
    `measures.parquet` and `outliers.parquet`, where it makes prints `prints/*.arrow`.

    Raises:
        StageError: more samples were rejected than the budget allows, or all of them.
    """
    modality = modalities.modality(config.modality)
    with out.writer(QUARANTINE_FILE, QUARANTINE) as writer:
        quarantine = Quarantine(writer, "clean")
        scanned = scan(ingested, modality, config, out, quarantine)
        too_many = _over_budget(config, quarantine, ingested.rows)
        if not too_many:
            duplicates = find_duplicates(out, scanned, config.near_duplicates)
            contradicting, num_conflicts = conflicts(ingested, duplicates.sets)
            unusual = _outliers(out, scanned.kept, config.outlier_deviations)
            flagged = heapq.merge(contradicting, unusual, key=lambda item: item[0])
            quarantine.add_rows(ingested, modality, flagged)
    if too_many:
        out.leave(QUARANTINE_FILE)
        raise StageError(too_many)
    groups = connect([duplicates.equal, duplicates.near, named_pairs(ingested, scanned.kept)])
    write_groups(out, scanned.kept, scanned.keys, groups)
    rows = int(scanned.kept.sum())
    return out.artifact(rows=rows, measured=_measured(rows, quarantine, duplicates, groups, num_conflicts))


def _over_budget(config: CleanConfig, quarantine: Quarantine, total: int) -> str | None:
    """Why the stage cannot go on, where it cannot."""
    counts = quarantine.counts[REJECTED]
    rejected = counts.total()
    if rejected <= config.error_budget * total and rejected < total:
        return None
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    advice = "" if rejected == total else "; raise clean.error_budget to go on without them"
    return (
        f"clean: {rejected} of {total} samples cannot be used ({reasons}); for example "
        f"{'; '.join(quarantine.examples)}{advice}. All are listed by: pretextflow quarantine RUN"
    )


def _outliers(out: Output, kept: NDArray[np.bool_], most: float) -> Iterator[tuple[int, Found]]:
    """Write `outliers.parquet`; gives the rows beyond `most` deviations."""
    outliers: Outliers | None = None
    for batch in _measures(out, kept):
        outliers = outliers or Outliers(field.name for field in batch.schema if field.type == pa.float32())
        outliers.see(batch)
    if outliers is None:
        return
    with out.writer(OUTLIERS_FILE, OUTLIERS) as writer:
        for batch in _measures(out, kept):
            scored = outliers.score(batch)
            writer.write_table(scored)
            beyond = np.flatnonzero(scored["score"].to_numpy() > most)
            for line in scored.take(beyond).to_pylist():
                yield (
                    line[ROW],
                    Found("outlier", f"{line['measure']} lies {line['score']:.1f} deviations from the median", FLAGGED),
                )


def _measures(out: Output, kept: NDArray[np.bool_]) -> Iterator[pa.Table]:
    """Of the kept rows, as far as there are any."""
    if MEASURES_FILE in out.entries:
        for batch in out.batches(MEASURES_FILE):
            yield batch.filter(pa.array(kept[batch[ROW].to_numpy()]))


def _measured(
    rows: int, quarantine: Quarantine, duplicates: Duplicates, groups: Sets, num_conflicts: int
) -> dict[str, Any]:
    largest = int(groups.sizes.max(initial=1))
    copies = int(duplicates.sets.sizes.max(initial=1))
    measured: dict[str, Any] = {
        "rejected": quarantine.counts[REJECTED].total(),
        "reasons": dict(sorted(quarantine.counts[REJECTED].items())),
        "flagged": quarantine.counts[FLAGGED].total(),
        "flags": dict(sorted(quarantine.counts[FLAGGED].items())),
        "groups": rows - len(groups.rows) + len(groups.sizes),
        "largest_group": largest,
        "equal": len(duplicates.equal[0]),
        "near_pairs": len(duplicates.near[0]),
        "compared_pairs": duplicates.looked_at,
        "duplicates": len(duplicates.sets.rows) - len(duplicates.sets.sizes),
        "conflicting_labels": num_conflicts,
    }
    if copies > max(LARGE_ROWS, LARGE_SHARE * rows):
        measured["warnings"] = [
            f"{copies:,} of {rows:,} samples are joined as duplicates of each other and will stand in one split; where "
            "they only look alike, raise clean.near_duplicates, or set it to null to join equal ones only"
        ]
    return measured


STAGE = Stage("clean", CleanConfig, ("ingest",), run, version=3, parts=parts)
