"""What the fits of one transfer share: labelled rows of every split, classes, test groups, embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import GROUP_ID, LABEL, ROW, SPLIT, SPLITS_FILE, TEST, TRAIN, VAL

Int = NDArray[np.int64]
FEW_CLASSES = 2
NAMED = 5
"""Classes that a message names."""
WITHOUT = "or set transfer.strategies=[] to pretrain without it"


@dataclass(frozen=True)
class Labelled:
    """The labelled rows of a split artifact."""

    splits: pa.Table
    classes: list[str]
    """Sorted names; a class's number is its place here."""
    labels: Int
    """(N,) class numbers of all rows in payload order, -1 where there is no label."""
    train: Int
    """Positions of all train rows, labelled or not."""
    val: Int
    """Positions of labelled val rows."""
    test: Int
    """Positions of labelled test rows."""
    groups: Int
    """(T,) group numbers of the labelled test rows, from 0."""
    source_test: Int = field(default_factory=lambda: np.zeros(0, np.int64))
    """Positions of labelled test rows of the domains that the labels are from, where `test` is of another."""

    @property
    def num_groups(self) -> int:
        """Number of test groups with a labelled row."""
        return int(self.groups.max()) + 1


def load(split: Artifact, labels_per_class: Sequence[int] = ()) -> Labelled:
    """Read the labels of a split artifact.

    Raises:
        RequestError: as `check_labels`.
    """
    splits = split.table(SPLITS_FILE)
    check_labels(splits, labels_per_class)
    encoded = pc.dictionary_encode(splits[LABEL].combine_chunks())
    present = encoded.dictionary.to_pylist()
    classes = sorted(present)
    place = {name: number for number, name in enumerate(classes)}
    number = np.array([place[name] for name in present] or [0], dtype=np.int64)
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    labels = np.where(codes >= 0, number[codes], -1)
    of_split = splits[SPLIT].to_numpy()
    test = np.flatnonzero((of_split == TEST) & (labels >= 0))
    groups = splits[GROUP_ID].take(test).combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return Labelled(
        splits=splits,
        classes=classes,
        labels=labels,
        train=np.flatnonzero(of_split == TRAIN),
        val=np.flatnonzero((of_split == VAL) & (labels >= 0)),
        test=test,
        groups=groups,
    )


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
            f"transfer: {_classes(single)} one label only, which cannot stand in train and in test; give such a "
            f"class more labels, or leave it without one, {WITHOUT}"
        )
    _check_budgets({name: train.get(name, 0) for name in counts}, labels_per_class)


def _counts(labels: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist()}


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"class {shown} has" if len(names) == 1 else f"{len(names)} classes ({shown}) have"


def _check_classes(names: Sequence[str]) -> None:
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return
    broken = [name for name, number in zip(names, numbers, strict=True) if not number.is_integer()]
    if broken:
        raise RequestError(
            f"transfer: the labels are numbers with fractions, such as {broken[0]!r}, and transfer tells classes "
            f"apart; write classes as whole numbers or as text, {WITHOUT}"
        )


def _check_budgets(train: Mapping[str, int], labels_per_class: Sequence[int]) -> None:
    most = max(labels_per_class, default=0)
    name = min(sorted(train), key=lambda name: train[name])
    if most > train[name]:
        raise RequestError(
            f"transfer.labels_per_class: {most} is larger than the {train[name]} train rows with a label of class "
            f"{name!r}; leave out what is above {train[name]}, or label more rows of that class"
        )


def embeddings(embed: Artifact, name: str, splits: pa.Table) -> NDArray[np.float64]:
    """(N, D) embeddings in payload order.

    Args:
        name: file of the embed artifact.
    """
    table = embed.table(name)
    assert table[ROW].equals(splits[ROW]), f"{name} and the splits are not of the same rows"
    column = table["embedding"].combine_chunks()
    width = column.type.list_size
    flat: NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, width).astype(np.float64)
