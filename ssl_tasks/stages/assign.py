"""Assign: decide for every group whether it is train, val or test, before anything is fitted.

It stands between clean and normalize so that statistics, vocabularies and quantiles see train rows only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.quarantine import Found, Quarantine
from ssl_tasks.config import Config, artifact_reference
from ssl_tasks.schema import (
    ASSIGNMENT,
    ASSIGNMENT_FILE,
    GROUP_ID,
    GROUPS_FILE,
    QUARANTINE,
    QUARANTINE_FILE,
    ROW,
    SPLITS,
)
from ssl_tasks.splitting.decide import decide, examine
from ssl_tasks.splitting.earlier import earlier_splits
from ssl_tasks.splitting.groups import NOT_GIVEN, Grouped, leaked_rows, read_groups
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output

Int8 = NDArray[np.int8]


def _as_fractions(value: Any) -> Any:
    """`{train: 0.7, val: 0.15, test: 0.15}` as well as `[0.7, 0.15, 0.15]`."""
    if isinstance(value, dict):
        unknown = sorted(set(value) - set(SPLITS))
        if unknown:
            raise ValueError(f"unknown split {unknown[0]!r}, there are train, val and test")
        return tuple(value.get(name, 0.0) for name in SPLITS)
    return value


Fractions = Annotated[tuple[float, float, float], BeforeValidator(_as_fractions)]


class AssignConfig(Config):
    """The part of the recipe's `split` section that decides who goes where."""

    fractions: Fractions = (0.7, 0.15, 0.15)
    """Shares of train, val and test, as a list or by name."""
    stratify: bool = True
    """Keep the shares within every class; the label of a group is its most frequent one."""
    folds: int | None = Field(None, ge=2)
    """Cut the groups into so many parts; test is part `fold`, and val its share of the rest."""
    fold: int = Field(0, ge=0)
    use_given: bool = True
    """Keep the splits that the data names (train and test folders, a split column); false draws anew."""
    earlier: str | None = artifact_reference()
    """An earlier split artifact (its fingerprint, or its URI in another store): what stood in it stays where it was."""
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _sensible(self) -> AssignConfig:
        if min(self.fractions) < 0 or self.fractions[0] <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must not be negative, train above 0, and sum to 1 (got {self.fractions})")
        if self.fold and self.fold >= (self.folds or 0):
            raise ValueError(f"fold counts from 0 and is less than folds (got fold {self.fold} of {self.folds})")
        return self


def run(config: AssignConfig, out: Output, ingested: Artifact, cleaned: Artifact) -> Artifact:
    """Write `assignment.parquet` and a quarantine of rows that duplicate a given test (or val) row.

    Raises:
        RequestError: a given split has an unknown name, there is no earlier split of that name, there are fewer
            groups than folds, or no row is left for train.
    """
    found = read_groups(ingested, cleaned, use_given=config.use_given)
    measured: dict[str, Any] = {"leaked_as_given": leaked_rows(found.group, found.given)} if found.any_given else {}
    warnings: list[str] = []
    placed = np.zeros(len(found.size), bool)
    if config.earlier:
        earlier = earlier_splits(config.earlier, out, ingested, cleaned)
        known = earlier.splits != NOT_GIVEN
        placed[found.group[known]] = True
        measured["from_earlier"] = int(known.sum())
        warnings += earlier.warnings()
        found.given = np.where(known, earlier.splits, found.given)
    taken = found.highest_given()
    keep = (found.given == NOT_GIVEN) | (found.given == taken[found.group])
    splits = decide(config, found, taken, placed)[found.group]
    warnings += examine(config, found, splits, keep)
    _write(out, cleaned, splits, keep)
    with out.writer(QUARANTINE_FILE, QUARANTINE) as writer:
        quarantine = Quarantine(writer, "assign")
        modality = modalities.modality(ingested.measured["modality"])
        quarantine.add_rows(ingested, modality, _outranked(found, splits, keep))
    measured |= {
        "splits": {name: int((splits[keep] == number).sum()) for number, name in enumerate(SPLITS)},
        "rejected": int((~keep).sum()),
    }
    if warnings:
        measured["warnings"] = warnings
    return out.artifact(rows=int(keep.sum()), measured=measured)


def _outranked(found: Grouped, splits: Int8, keep: np.ndarray) -> Iterator[tuple[int, Found]]:
    for row, split in zip(found.rows[~keep], splits[~keep], strict=True):
        name = SPLITS[split]
        yield int(row), Found(f"duplicate_of_{name}", f"belongs to the same group as a given {name} row")


def _write(out: Output, cleaned: Artifact, splits: Int8, keep: np.ndarray) -> None:
    names = pa.array(SPLITS)
    first = 0
    with out.writer(ASSIGNMENT_FILE, ASSIGNMENT) as writer:
        for batch in cleaned.batches(GROUPS_FILE):
            part = slice(first, first + batch.num_rows)
            columns = [batch[ROW], batch[GROUP_ID], names.take(pa.array(splits[part]))]
            table = pa.table(columns, schema=ASSIGNMENT)
            writer.write_table(table.filter(pa.array(keep[part])))
            first += batch.num_rows


STAGE = Stage("assign", AssignConfig, ("ingest", "clean"), run, version=4, section="split")
