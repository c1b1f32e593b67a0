"""What the fits of one transfer share: targets of the rows of every split, classes, test groups, embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import DOMAIN, GROUP_ID, LABEL, LABEL_KEY, ROW, SPLIT, SPLITS, SPLITS_FILE, TEST, TRAIN
from ssl_tasks.transfer import dense_targets, targets
from ssl_tasks.transfer.rows import Stored
from ssl_tasks.transfer.targets import (
    CLASSIFICATION,
    DENSE,
    LOCALIZATION,
    MULTI_LABEL,
    REGRESSION,
    WITHOUT,
    named_classes,
)

Int = NDArray[np.int64]
FEW_CLASSES = 2
COLUMNS = [ROW, DOMAIN, SPLIT, LABEL, LABEL_KEY]
"""Of all rows."""


@dataclass(frozen=True)
class Labelled:
    """The labelled rows of a split artifact, where a label is whatever `task` predicts."""

    splits: pa.Table
    """`label` is what budgets are drawn by: a row's class, or one and the same for all rows that have a target. Of the
    ids, which are as long as all else together, `group_id` is there for labelled test rows, and `sample_id` not."""
    classes: list[str]
    """Sorted names; a class's number is its place here. Empty for numbers."""
    labels: NDArray[Any]
    """Of all rows in payload order: class numbers (N,), -1 where there is no label; for `multi_label` (N, K) 0 and 1,
    -1 where a row is not labelled; for `regression` (N,) float64, NaN where there is no number. For `segmentation`
    masks that are read when they are asked for, for `localization` (N, 4) boxes; see `dense_targets`."""
    train: Int
    """Positions of all train rows, labelled or not."""
    val: Int
    """Positions of labelled val rows."""
    test: Int
    """Positions of labelled test rows."""
    groups: Int
    """(T,) group numbers of the labelled test rows, from 0."""
    task: str = CLASSIFICATION
    source_test: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    """Positions of labelled test rows of the domains that the labels are from, where `test` is of another."""

    @property
    def num_outputs(self) -> int:
        """What a fit gives for a row: a score for each class, one number, or the four of a box."""
        return {REGRESSION: 1, LOCALIZATION: 4}.get(self.task, len(self.classes))

    @property
    def num_groups(self) -> int:
        """Number of test groups with a labelled row."""
        return int(self.groups.max()) + 1


def load(
    split: Artifact,
    labels_per_class: Sequence[int] = (),
    task: str = CLASSIFICATION,
    normalized: Artifact | None = None,
    *,
    whole: bool = True,
) -> Labelled:
    """Read the targets of a split artifact: its labels, or for `multi_label` and `regression` those of its ingest.

    Args:
        task: one of `targets.TASKS`.
        normalized: what holds the masks or boxes, for the tasks of such.
        whole: whether fits see the classes of all rows, and these are checked; of domains `domains.check` sees to what
            each fit has.

    Raises:
        RequestError: as `check_labels`, and the checks of `targets` and `dense_targets`.
    """
    splits = split.table(SPLITS_FILE, COLUMNS)
    if task in DENSE:
        assert normalized is not None, "masks and boxes are read as normalize stores them"
        classes, rows, known = dense_targets.load(normalized, splits, task)
        return _labelled(split, targets.one_stratum(splits, known), classes, rows, known, task)
    if task == REGRESSION:
        numbers = targets.numbers(split, splits)
        targets.check_numbers(numbers, splits)
        known = np.isfinite(numbers)
        return _labelled(split, targets.one_stratum(splits, known), [], numbers, known, task)
    if task == MULTI_LABEL:
        given = targets.several(split, splits)
        targets.check_several(given, splits)
        classes, several = targets.indicators(given)
        known = pc.is_valid(given).to_numpy(zero_copy_only=False)
        return _labelled(split, targets.one_stratum(splits, known), classes, several, known, task)
    if whole:
        check_labels(splits, labels_per_class)
    classes, labels = _class_numbers(splits)
    return _labelled(split, splits, classes, labels, labels >= 0, task)


def check(split: Artifact, labels_per_class: Sequence[int] = (), task: str = CLASSIFICATION) -> None:
    """Refuse what `load` would refuse."""
    splits = split.table(SPLITS_FILE, [ROW, SPLIT, LABEL])
    if task in DENSE:
        dense_targets.check_splits(dense_targets.given(split, splits, task), splits, task)
        return
    if task == REGRESSION:
        targets.check_numbers(targets.numbers(split, splits), splits)
    elif task == MULTI_LABEL:
        targets.check_several(targets.several(split, splits), splits)
    else:
        check_labels(splits, labels_per_class)


def _class_numbers(splits: pa.Table) -> tuple[list[str], Int]:
    encoded = pc.dictionary_encode(splits[LABEL].combine_chunks())
    present = encoded.dictionary.to_pylist()
    classes = sorted(present)
    place = {name: number for number, name in enumerate(classes)}
    number = np.array([place[name] for name in present] or [0], dtype=np.int64)
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    return classes, np.where(codes >= 0, number[codes], -1)


def _labelled(
    split: Artifact, splits: pa.Table, classes: list[str], labels: NDArray[Any], known: NDArray[np.bool_], task: str
) -> Labelled:
    # compared by Arrow: as objects of Python the names take 60 bytes a row
    train, val, test = (pc.equal(splits[SPLIT], name).to_numpy() for name in SPLITS)
    tested = test & known
    ids = _group_ids(split, tested)
    groups = ids.take(pa.array(np.flatnonzero(tested))).dictionary_encode().indices.to_numpy().astype(np.int64)
    return Labelled(
        splits=splits.append_column(GROUP_ID, ids),
        classes=classes,
        labels=labels,
        train=np.flatnonzero(train),
        val=np.flatnonzero(val & known),
        test=np.flatnonzero(tested),
        groups=groups,
        task=task,
    )


def _group_ids(split: Artifact, wanted: NDArray[np.bool_]) -> pa.Array:
    """(N,) of the rows that are wanted, null for others."""
    parts, first = [], 0
    for batch in split.batches(SPLITS_FILE, [GROUP_ID]):
        here = pa.array(wanted[first : first + batch.num_rows])
        parts.append(pc.if_else(here, batch[GROUP_ID].combine_chunks(), pa.scalar(None, pa.string())))
        first += batch.num_rows
    return pa.concat_arrays(parts)


def check_labels(splits: pa.Table, labels_per_class: Sequence[int] = ()) -> None:
    """Refuse labels that no strategy could work with; all it needs is known before anything is trained.

    Args:
        splits: with the columns `split` and `label`.

    Raises:
        RequestError: labels are numbers with fractions, train has labels of fewer than two classes, a class has one
            label, or fewer in train than a budget asks for, or test has none.
    """
    labelled = splits.filter(pc.is_valid(splits[LABEL]))
    _check_classes(pc.unique(labelled[LABEL]).to_pylist())
    train = _counts(labelled.filter(pc.equal(labelled[SPLIT], TRAIN))[LABEL])
    if len(train) < FEW_CLASSES:
        found = "no labels" if not train else "labels of one class only"
        raise RequestError(
            f"transfer: the train rows have {found}, and transfer needs two classes at least; name the labels in the "
            f"ingest section, {WITHOUT}"
        )
    if not pc.any(pc.equal(labelled[SPLIT], TEST)).as_py():
        raise RequestError(f"transfer: no test row has a label; raise the test share of split.fractions, {WITHOUT}")
    counts = _counts(labelled[LABEL])
    single = sorted(name for name, count in counts.items() if count == 1)
    if single:
        raise RequestError(
            f"transfer: {named_classes(single)} one label only, which cannot stand in train and in test; give such a "
            f"class more labels, or leave it without one, {WITHOUT}"
        )
    _check_budgets({name: train.get(name, 0) for name in counts}, labels_per_class)


def _counts(labels: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist()}


def _check_classes(names: Sequence[str]) -> None:
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return
    broken = [name for name, number in zip(names, numbers, strict=True) if not number.is_integer()]
    if broken:
        raise RequestError(
            f"transfer: the labels are numbers with fractions, such as {broken[0]!r}, and transfer.task=classification "
            "tells classes apart; set transfer.task=regression to predict numbers, or write classes as whole numbers "
            f"or as text, {WITHOUT}"
        )


def _check_budgets(train: Mapping[str, int], labels_per_class: Sequence[int]) -> None:
    most = max(labels_per_class, default=0)
    name = min(sorted(train), key=lambda name: train[name])
    if most > train[name]:
        raise RequestError(
            f"transfer.labels_per_class: {most} is larger than the {train[name]} train rows with a label of class "
            f"{name!r}; leave out what is above {train[name]}, or label more rows of that class"
        )


def embeddings(embed: Artifact, name: str, splits: pa.Table) -> Stored:
    """(N, D) embeddings in payload order, not read yet.

    Args:
        name: file of the embed artifact.
    """
    assert embed.table(name, [ROW])[ROW].equals(splits[ROW]), f"{name} and the splits are not of the same rows"
    return Stored(embed, name)
