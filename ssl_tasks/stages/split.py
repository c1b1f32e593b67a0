"""Split: apply the assignment, prove that no group crosses it, say what a naive split would have leaked."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import StageError
from ssl_tasks.schema import (
    ASSIGNMENT_FILE,
    CONTENT_ID,
    DOMAIN,
    GROUP_ID,
    LABEL,
    SAMPLE_ID,
    SPLIT,
    SPLIT_ROWS,
    SPLITS,
    SPLITS_FILE,
)
from ssl_tasks.splitting.groups import hex_keys, leaked_rows, number_groups, side_by_side
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
    keys, splits = np.empty(assigned.rows, np.uint64), np.empty(assigned.rows, np.int8)
    labelled: Counter[str] = Counter()
    classes: set[str] = set()
    first = 0
    parts = side_by_side(ingested, assigned.batches(ASSIGNMENT_FILE), [SAMPLE_ID, CONTENT_ID, DOMAIN, LABEL])
    with out.writer(SPLITS_FILE, SPLIT_ROWS) as writer:
        for kept, identity in parts:
            part = slice(first, first + kept.num_rows)
            keys[part] = hex_keys(kept[GROUP_ID])
            splits[part] = pc.index_in(kept[SPLIT], pa.array(SPLITS)).to_numpy()
            drawn = [_label_key(config.seed, name) for name in identity[CONTENT_ID].to_pylist()]
            columns = {**dict(zip(kept.column_names, kept.columns, strict=True)), "label_key": pa.array(drawn)}
            columns |= {name: identity[name] for name in (SAMPLE_ID, DOMAIN, LABEL)}
            writer.write_table(pa.table([columns[name] for name in SPLIT_ROWS.names], schema=SPLIT_ROWS))
            with_label = kept.filter(pc.is_valid(identity[LABEL]))
            labelled.update(with_label[SPLIT].to_pylist())
            classes.update(pc.unique(identity[LABEL]).drop_null().to_pylist())
            first += kept.num_rows
    group, _, _ = number_groups(keys)
    _prove(group, splits)
    measured: dict[str, Any] = {
        "splits": {name: int((splits == number).sum()) for number, name in enumerate(SPLITS)},
        "labelled": {name: labelled[name] for name in SPLITS},
        "classes": sorted(classes),
        "leaked_test_rows": leaked_rows(group, splits),
        "naive_leaked_test_rows": _naive_leakage(config.seed, group, splits),
    }
    if "leaked_as_given" in assigned.measured:
        measured["leaked_as_given"] = assigned.measured["leaked_as_given"]
    return out.artifact(rows=assigned.rows, measured=measured)


def _label_key(seed: int, content_id: str) -> int:
    digest = hashlib.blake2b(f"budget {seed} {content_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _prove(group: NDArray[np.int32], splits: NDArray[np.int8]) -> None:
    seen = np.full(int(group.max(initial=-1)) + 1, -1, np.int8)
    seen[group] = splits
    torn = np.flatnonzero(seen[group] != splits)
    if len(torn):
        names = sorted({SPLITS[seen[group[torn[0]]]], SPLITS[splits[torn[0]]]})
        raise StageError(f"split: one group stands in {names[0]} and in {names[1]} (position {torn[0]})")


def _naive_leakage(seed: int, group: NDArray[np.int32], splits: NDArray[np.int8]) -> float:
    """Mean number of leaked test rows when rows are shuffled without looking at groups."""
    random = np.random.default_rng(seed)
    return float(np.mean([leaked_rows(group, random.permutation(splits)) for _ in range(NAIVE_DRAWS)]))


STAGE = Stage("split", SplitConfig, ("ingest", "assign"), run, version=3)
