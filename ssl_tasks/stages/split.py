"""Split: apply the assignment, prove that no group crosses it, say what a naive split would have leaked."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import StageError
from ssl_tasks.schema import (
    ASSIGNMENT_FILE,
    DOMAIN,
    GROUP_ID,
    LABEL,
    ROW,
    ROWS_FILE,
    SAMPLE_ID,
    SPLIT,
    SPLIT_ROWS,
    SPLITS,
    SPLITS_FILE,
    TEST,
    TRAIN,
)
from ssl_tasks.stages.assign import AssignConfig
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output

NAIVE_DRAWS = 20


class SplitConfig(AssignConfig):
    """The recipe's `split` section."""


def run(config: SplitConfig, out: Output, ingested: Artifact, assigned: Artifact) -> Artifact:
    """Write `splits.parquet`, one row for each payload position, and measure leakage.

    `label_key` is the draw of the label budgets: the budget of a seed is a prefix of an order made of it, so a
    larger budget contains every smaller one, and new transfer seeds need no new split.

    Raises:
        StageError: a group stands in more than one split.
    """
    table = assigned.table(ASSIGNMENT_FILE)
    rows = ingested.table(ROWS_FILE, [ROW, SAMPLE_ID, DOMAIN, LABEL]).take(table[ROW])
    splits, groups = table[SPLIT].to_pylist(), table[GROUP_ID].to_pylist()
    _prove(groups, splits)
    keys = [_label_key(config.seed, name) for name in rows[SAMPLE_ID].to_pylist()]
    out.table(
        SPLITS_FILE,
        pa.table(
            [table[ROW], rows[SAMPLE_ID], table[GROUP_ID], rows[DOMAIN], table[SPLIT], rows[LABEL], pa.array(keys)],
            schema=SPLIT_ROWS,
        ),
    )
    return out.artifact(rows=table.num_rows, measured=_measure(config, rows[LABEL].to_pylist(), groups, splits))


def _label_key(seed: int, sample_id: str) -> int:
    digest = hashlib.blake2b(f"budget {seed} {sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _prove(groups: list[str], splits: list[str]) -> None:
    seen: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if seen.setdefault(group, split) != split:
            raise StageError(f"split: group {group} stands in {seen[group]} and in {split}")


def _measure(config: SplitConfig, labels: list[str | None], groups: list[str], splits: list[str]) -> dict[str, Any]:
    names = np.array(splits)
    labelled = np.array([label is not None for label in labels])
    return {
        "splits": {name: int((names == name).sum()) for name in SPLITS},
        "labelled": {name: int(((names == name) & labelled).sum()) for name in SPLITS},
        "classes": sorted({label for label in labels if label is not None}),
        "leaked_test_rows": 0,
        "naive_leaked_test_rows": _naive_leakage(config.seed, groups, names),
    }


def _naive_leakage(seed: int, groups: list[str], splits: np.ndarray) -> float:
    """Mean number of test rows with a group mate in train when rows are shuffled without looking at groups."""
    codes = np.unique(groups, return_inverse=True)[1]
    random = np.random.default_rng(seed)
    leaked = []
    for _ in range(NAIVE_DRAWS):
        shuffled = random.permutation(splits)
        in_train = np.zeros(codes.max() + 1, bool)
        in_train[codes[shuffled == TRAIN]] = True
        leaked.append(in_train[codes[shuffled == TEST]].sum())
    return float(np.mean(leaked))


STAGE = Stage("split", SplitConfig, ("ingest", "assign"), run)
