"""What a row may have besides one class: a number, or several classes. The split artifact knows its rows, and the
ingest artifact before it their targets.

    numbers = targets.numbers(split, split.table("splits.parquet"))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import LABEL, LABELS, NUMBER, ROW, ROWS_FILE, SPLIT, TEST, TRAIN

Float = NDArray[np.float64]
Int = NDArray[np.int64]

CLASSIFICATION, MULTI_LABEL, REGRESSION, RETRIEVAL = "classification", "multi_label", "regression", "retrieval"
SEGMENTATION, LOCALIZATION = "segmentation", "localization"
TASKS = (CLASSIFICATION, MULTI_LABEL, REGRESSION, RETRIEVAL, SEGMENTATION, LOCALIZATION)
DENSE = frozenset({SEGMENTATION, LOCALIZATION})
"""Tasks that say where things are in an image; see `dense_targets`."""
NAMED = 5
"""Classes that a message names."""
FEW = 2
WITHOUT = "or set transfer.strategies=[] to pretrain and embed only"
TEST_HINT = f"raise the test share of split.fractions, {WITHOUT}"


def numbers(split: Artifact, splits: pa.Table) -> Float:
    """(N,) numbers of the rows of a split artifact, NaN where there is none.

    Where no row has a number, labels that are all numbers are taken for them.

    Args:
        splits: its table, with `row` and `label`.

    Raises:
        RequestError: there are no numbers.
    """
    given = ingested(split, splits, NUMBER)
    if given.null_count == len(given):
        given = _label_numbers(splits[LABEL])
    found: Float = given.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def several(split: Artifact, splits: pa.Table) -> pa.ChunkedArray:
    """(N,) lists of class names of the rows of a split artifact, null where a row is not labelled.

    Raises:
        RequestError: no row has such a list.
    """
    given = ingested(split, splits, LABELS)
    if given.null_count == len(given):
        one = " They have one label each, which is transfer.task=classification." if _any(splits[LABEL]) else ""
        raise RequestError(
            "transfer.task: multi_label needs rows with several labels, and no row has a list of them; name their "
            f"column with ingest.labels_column, or a column for each class with ingest.class_columns, {WITHOUT}.{one}"
        )
    return given


def indicators(given: pa.ChunkedArray) -> tuple[list[str], Int]:
    """Sorted names of the K classes, and (N, K): 1 where a row has the class, 0 where not, -1 where nobody knows."""
    flat = pc.list_flatten(given)
    classes = sorted(pc.unique(flat).drop_null().to_pylist())
    table = np.zeros((len(given), len(classes)), np.int64)
    table[pc.is_null(given).to_numpy(zero_copy_only=False)] = -1
    owner = pc.list_parent_indices(given).to_numpy(zero_copy_only=False).astype(np.int64)
    table[owner, pc.index_in(flat, pa.array(classes, pa.string())).to_numpy(zero_copy_only=False).astype(np.int64)] = 1
    return classes, table


def one_stratum(splits: pa.Table, known: NDArray[np.bool_]) -> pa.Table:
    """The table with one and the same label for all rows that have a target: label budgets are drawn from all alike."""
    same = pc.if_else(pa.array(known), pa.scalar(""), pa.scalar(None, pa.string()))
    return splits.set_column(splits.column_names.index(LABEL), splits.schema.field(LABEL), same)


def check_numbers(found: Float, splits: pa.Table) -> None:
    """Refuse numbers that nothing can be learnt from or measured by.

    Raises:
        RequestError: train has fewer than two different ones, or test has none.
    """
    train, test = (found[pc.equal(splits[SPLIT], name).to_numpy()] for name in (TRAIN, TEST))
    different = len(np.unique(train[np.isfinite(train)]))
    if different < FEW:
        what = "one number only" if different else "no numbers"
        raise RequestError(f"transfer: the train rows have {what}, and regression needs two at least; {TEST_OR_NAME}")
    if not np.isfinite(test).any():
        raise RequestError(f"transfer: no test row has a number; {TEST_HINT}")


TEST_OR_NAME = f"name the column of the numbers with ingest.number_column, {WITHOUT}"


def check_several(given: pa.ChunkedArray, splits: pa.Table) -> None:
    """Refuse lists of classes that nothing can be learnt from or measured by.

    Raises:
        RequestError: train has no class, a class has one row, or test has no labelled row.
    """
    known, of_split = pc.is_valid(given), splits[SPLIT]
    if not len(pc.unique(pc.list_flatten(given.filter(pc.equal(of_split, TRAIN))))):
        raise RequestError(
            f"transfer: no labelled train row has a class; look at ingest.labels_column or class_columns, {WITHOUT}"
        )
    if not pc.any(pc.and_(known, pc.equal(of_split, TEST))).as_py():
        raise RequestError(f"transfer: no test row is labelled; {TEST_HINT}")
    classes, table = indicators(given)
    single = [name for name, rows in zip(classes, (table == 1).sum(axis=0), strict=True) if rows == 1]
    if single:
        raise RequestError(
            f"transfer: {named_classes(single)} one row only, which cannot stand in train and in test; give such a "
            f"class more rows, or leave it out of the lists, {WITHOUT}"
        )


def named_classes(names: Sequence[str]) -> str:
    """`class 'a' has`, or `2 classes ('a', 'b') have`."""
    shown = ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"class {shown} has" if len(names) == 1 else f"{len(names)} classes ({shown}) have"


def ingested(split: Artifact, splits: pa.Table, column: str) -> pa.ChunkedArray:
    """A column of the ingest artifact for the rows of the split; of rows in ascending order both."""
    store = split.store
    before = store.handle(store.manifest(split.manifest.parents["ingest"]))
    whole = before.table(ROWS_FILE, [ROW, column])
    places = np.searchsorted(whole[ROW].to_numpy(), splits[ROW].to_numpy())
    return whole[column].take(pa.array(places))


def _label_numbers(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    if not _any(labels):
        raise RequestError(f"transfer.task: regression needs numbers, and no row has one; {TEST_OR_NAME}")
    try:
        return pc.cast(labels, pa.float64())
    except pa.ArrowInvalid as error:
        first = next(name for name in pc.unique(labels).drop_null().to_pylist() if not _is_number(name))
        raise RequestError(
            f"transfer.task: regression needs numbers, and the labels are classes such as {first!r}; {TEST_OR_NAME}"
        ) from error


def _is_number(text: str) -> bool:
    """Whether Arrow takes it for one, which is stricter than Python's float."""
    try:
        pa.scalar(text).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _any(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count < len(column))
