"""Assign: decide for every group whether it is train, val or test, before anything is fitted.

It stands between clean and normalize so that statistics, vocabularies and quantiles see train rows only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import (
    ASSIGNMENT,
    ASSIGNMENT_FILE,
    GROUP_ID,
    GROUPS_FILE,
    LABEL,
    QUARANTINE,
    QUARANTINE_FILE,
    ROW,
    ROWS_FILE,
    SAMPLE_ID,
    SOURCE,
    SPLIT,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
)
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output


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
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _sum_to_one(self) -> AssignConfig:
        if min(self.fractions) < 0 or self.fractions[0] <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must not be negative, train above 0, and sum to 1 (got {self.fractions})")
        return self


def run(config: AssignConfig, out: Output, ingested: Artifact, cleaned: Artifact) -> Artifact:
    """Write `assignment.parquet` and a quarantine of train rows that duplicate a given test row.

    Raises:
        RequestError: a given split has an unknown name.
    """
    kept = cleaned.table(GROUPS_FILE)
    rows = ingested.table(ROWS_FILE, [ROW, SAMPLE_ID, SOURCE, SPLIT, LABEL]).take(kept[ROW])
    groups, labels = kept[GROUP_ID].to_pylist(), rows[LABEL].to_pylist()
    given = [_given(name) for name in rows[SPLIT].to_pylist()]
    decided = _decide(config, groups, labels)
    leaking = _leaking(groups, given)
    splits = [name or decided[group] for name, group in zip(given, groups, strict=True)]
    keep = np.array([not leak for leak in leaking])
    table = pa.table([kept[ROW], kept[GROUP_ID], pa.array(splits)], schema=ASSIGNMENT)
    out.table(ASSIGNMENT_FILE, table.filter(pa.array(keep)))
    quarantine = [
        {
            **{name: rows[name][place].as_py() for name in (ROW, SAMPLE_ID, SOURCE)},
            "stage": "assign",
            "reason": f"duplicate_of_{leaking[place]}",
            "detail": f"same group as a given {leaking[place]} row: {groups[place]}",
        }
        for place in np.flatnonzero(~keep)
    ]
    out.table(QUARANTINE_FILE, pa.Table.from_pylist(quarantine, schema=QUARANTINE))
    counts = Counter(name for name, ok in zip(splits, keep, strict=True) if ok)
    measured = {"splits": {name: counts[name] for name in SPLITS}, "rejected": len(quarantine)}
    return out.artifact(rows=int(keep.sum()), measured=measured)


def _given(name: str | None) -> str | None:
    if name is None:
        return None
    known = {"training": TRAIN, "validation": VAL, "valid": VAL, "dev": VAL, "testing": TEST}
    plain = known.get(name.lower(), name.lower())
    if plain not in SPLITS:
        raise RequestError(f"ingest.split_column: {name!r} is none of train, val, test")
    return plain


def _decide(config: AssignConfig, groups: list[str], labels: list[str | None]) -> dict[str, str]:
    """A split for each group: within a stratum, groups in random order are cut where the shares say."""
    members: dict[str, Counter[str]] = {}
    for group, label in zip(groups, labels, strict=True):
        members.setdefault(group, Counter())[label or ""] += 1
    strata: dict[str, list[str]] = {}
    for group, found in members.items():
        label = max(sorted(found), key=lambda name: found[name]) if config.stratify else ""
        strata.setdefault(label, []).append(group)
    _, val, test = config.fractions
    decided = {}
    for stratum in strata.values():
        total = sum(members[group].total() for group in stratum)
        passed = 0
        for group in sorted(stratum, key=lambda name: _key(config.seed, name)):
            middle = (passed + members[group].total() / 2) / total
            decided[group] = TEST if middle < test else VAL if middle < test + val else TRAIN
            passed += members[group].total()
    return decided


def _key(seed: int, group: str) -> bytes:
    return hashlib.blake2b(f"{seed} {group}".encode(), digest_size=16).digest()


def _leaking(groups: list[str], given: list[str | None]) -> list[str | None]:
    """For each row the split it would leak into: a given test row in its group outranks val, val outranks train."""
    rank = {None: 0, TRAIN: 0, VAL: 1, TEST: 2}
    highest: dict[str, str | None] = {}
    for group, name in zip(groups, given, strict=True):
        if rank[name] > rank[highest.get(group)]:
            highest[group] = name
    return [highest.get(g) if rank[highest.get(g)] > rank[n] else None for g, n in zip(groups, given, strict=True)]


STAGE = Stage("assign", AssignConfig, ("ingest", "clean"), run, section="split")
