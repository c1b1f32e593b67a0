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
    seed: int = Field(0, ge=0, lt=2**31)

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
    taken = _highest(groups, given)
    decided = _decide(config, groups, labels) | taken
    splits = [decided[group] for group in groups]
    keep = np.array([name is None or name == taken[group] for name, group in zip(given, groups, strict=True)])
    table = pa.table([kept[ROW], kept[GROUP_ID], pa.array(splits)], schema=ASSIGNMENT)
    out.table(ASSIGNMENT_FILE, table.filter(pa.array(keep)))
    quarantine = [
        {
            **{name: rows[name][place].as_py() for name in (ROW, SAMPLE_ID, SOURCE)},
            "stage": "assign",
            "reason": f"duplicate_of_{splits[place]}",
            "detail": f"same group as a given {splits[place]} row: {groups[place]}",
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
    """A split for each group: within a stratum, groups in random order are cut where the shares say.

    What a stratum's cut leaves over is owed to the next, or a hundred classes of three rows would give no test
    row. A stratum's own shares stay within half its largest group, for single rows within their rounding.
    """
    members: dict[str, Counter[str]] = {}
    for group, label in zip(groups, labels, strict=True):
        members.setdefault(group, Counter())[label or ""] += 1
    strata: dict[str, list[str]] = {}
    for group, found in members.items():
        label = max(sorted(found), key=lambda name: found[name]) if config.stratify else ""
        strata.setdefault(label, []).append(group)
    _, val, test = config.fractions
    decided = dict.fromkeys(members, TRAIN)
    owed = {TEST: 0.0, VAL: 0.0}
    for label in sorted(strata, key=lambda name: _key(config.seed, name)):
        order = sorted(strata[label], key=lambda name: _key(config.seed, name))
        sizes = [members[group].total() for group in order]
        total, half = sum(sizes), max(sizes) / 2
        place = passed = 0
        for name, share in ((TEST, test), (VAL, val)):
            began = passed
            end = min(began + share * total + min(max(owed[name], -half), half), (test + val) * total + half)
            while place < len(order) and passed + sizes[place] / 2 < end:
                decided[order[place]] = name
                passed += sizes[place]
                place += 1
            owed[name] += share * total - (passed - began)
    return decided


def _key(seed: int, group: str) -> bytes:
    return hashlib.blake2b(f"{seed} {group}".encode(), digest_size=16).digest()


def _highest(groups: list[str], given: list[str | None]) -> dict[str, str]:
    """The split of each group that has given rows: test outranks val, val outranks train."""
    highest: dict[str, str] = {}
    for group, name in zip(groups, given, strict=True):
        if name is not None:
            highest[group] = max(highest.get(group, name), name, key=SPLITS.index)
    return highest


STAGE = Stage("assign", AssignConfig, ("ingest", "clean"), run, version=2, section="split")
