"""Masks and boxes of a normalize artifact as targets of a transfer.

rows = MaskRows(normalized)
rows[np.array([5, 17])]             # (2, H, W) uint8
boxes = largest_boxes(normalized)   # (N, 4)
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import BOXES, MASK, ROW, ROWS_FILE, SPLIT, TEST, TRAIN
from ssl_tasks.shards import Shards, iterate
from ssl_tasks.transfer.segmented import IGNORED
from ssl_tasks.transfer.targets import LOCALIZATION, SEGMENTATION, TEST_HINT, WITHOUT

KEYS = {SEGMENTATION: "masks", LOCALIZATION: "boxes"}
"""The key of `ingest` that brings a task's targets."""
COLUMNS = {SEGMENTATION: MASK, LOCALIZATION: BOXES}
ROWS = 256
"""Masks that are looked at at once."""
FEW = 2


class MaskRows:
    """All masks, mapped and read by position as an array would be; it can be sent to another process as a handle."""

    def __init__(self, normalized: Artifact) -> None:
        self.normalized = normalized

    @cached_property
    def _shards(self) -> Shards:
        return Shards.open(self.normalized, MASK)

    def __getstate__(self) -> dict[str, Any]:
        return {"normalized": self.normalized}

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, H, W) at positions (B,)."""
        return self._shards.take(positions)

    def known(self) -> NDArray[np.bool_]:
        """(N,) whether a mask has a class anywhere."""
        parts = [
            (self[np.arange(at, min(at + ROWS, len(self)))] != IGNORED).any(axis=(1, 2))
            for at in range(0, len(self), ROWS)
        ]
        return np.concatenate(parts)


def load(normalized: Artifact, splits: pa.Table, task: str) -> tuple[list[str], NDArray[Any], NDArray[np.bool_]]:
    """The classes' numbers as text, the targets of all rows in payload order, and which rows have one.

    Raises:
        RequestError: as `check_stored` and `check_splits`.
    """
    check_stored(normalized, task)
    if task == SEGMENTATION:
        masks: Any = MaskRows(normalized)
        classes = [str(number) for number in range(normalized.measured["masks"]["classes"][-1] + 1)]
        known, rows = masks.known(), masks
    else:
        classes, rows = [], largest_boxes(normalized)
        known = np.isfinite(rows).all(axis=1)
    check_splits(known, splits, task)
    return classes, rows, known


def largest_boxes(normalized: Artifact) -> NDArray[np.float64]:
    """(N, 4) x, y, width and height of each row's largest box, as shares of the stored side; NaN where it has none."""
    side = normalized.measured["shape"][0]
    parts = []
    for shard in iterate(normalized, "payload"):
        column = shard[BOXES].combine_chunks()
        boxes, owner = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        values = np.stack([boxes.field(name).to_numpy(zero_copy_only=False) for name in "xywh"], axis=1)
        order = np.argsort(values[:, 2] * values[:, 3], kind="stable")
        found = np.full((len(column), 4), np.nan)
        found[owner[order]] = values[order]  # the last one written is the largest
        parts.append(found / side)
    return np.concatenate(parts)


def check_stored(normalized: Artifact, task: str) -> None:
    """Refuse data without what the task predicts; all it needs is what normalize measured.

    Raises:
        RequestError: there are no masks (boxes), or masks of one class only.
    """
    key = KEYS[task]
    found = normalized.measured.get(key)
    if not found or not found["rows"]:
        raise RequestError(
            f"transfer.task: {task} needs {key}, and normalize has stored none; set ingest.{key}=true, {WITHOUT}"
        )
    classes = found.get("classes", range(FEW))
    if len(classes) < FEW:
        raise RequestError(
            f"transfer.task: {task} needs masks of two classes at least, and all their pixels are {classes[0]} or "
            f"{IGNORED}, which is ignored; write classes as 0, 1, ..., {WITHOUT}"
        )


def check_splits(known: NDArray[np.bool_], splits: pa.Table, task: str) -> None:
    """Refuse splits that nothing can be learnt from or measured by.

    Args:
        known: (N,) rows of the splits with a mask, or a box.

    Raises:
        RequestError: train or test has none.
    """
    for name in (TRAIN, TEST):
        if not known[pc.equal(splits[SPLIT], name).to_numpy()].any():
            hint = TEST_HINT if name == TEST else WITHOUT.removeprefix("or ")
            raise RequestError(f"transfer.task: {task} needs {KEYS[task]}, and no {name} row has any; {hint}")


def given(split: Artifact, splits: pa.Table, task: str) -> NDArray[np.bool_]:
    """(N,) whether a row came with a mask or a box, before anything is stored.

    Args:
        splits: the split artifact's table, with `row`.
    """
    ingested = split.store.handle(split.store.manifest(split.manifest.parents["ingest"]))
    column, rows = COLUMNS[task], []
    for batch in ingested.batches(ROWS_FILE, [ROW, column], rows=ROWS):
        has = pc.is_valid(batch[column]) if task == SEGMENTATION else pc.greater(pc.list_value_length(batch[column]), 0)
        rows.append(batch[ROW].to_numpy()[has.fill_null(False).to_numpy()])
    return np.isin(splits[ROW].to_numpy(), np.concatenate(rows))
