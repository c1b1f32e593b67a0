"""What the fits of one transfer share: labelled rows of every split, classes, test groups, embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import GROUP_ID, LABEL, ROW, SPLIT, SPLITS_FILE, TEST, TRAIN, VAL

Int = NDArray[np.int64]
FEW_CLASSES = 2


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

    @property
    def num_groups(self) -> int:
        """Number of test groups with a labelled row."""
        return int(self.groups.max()) + 1


def load(split: Artifact) -> Labelled:
    """Read the labels of a split artifact.

    Raises:
        RequestError: train has labels of fewer than two classes, or test has none.
    """
    splits = split.table(SPLITS_FILE)
    encoded = pc.dictionary_encode(splits[LABEL].combine_chunks())
    present = encoded.dictionary.to_pylist()
    classes = sorted(present)
    place = {name: number for number, name in enumerate(classes)}
    number = np.array([place[name] for name in present] or [0], dtype=np.int64)
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    labels = np.where(codes >= 0, number[codes], -1)
    of_split = splits[SPLIT].to_numpy()
    test = np.flatnonzero((of_split == TEST) & (labels >= 0))
    _check(labels[of_split == TRAIN], test)
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


def _check(train_labels: Int, test: Int) -> None:
    count = len(np.unique(train_labels[train_labels >= 0]))
    if count < FEW_CLASSES:
        found = "no labels" if count == 0 else "labels of one class only"
        raise RequestError(
            f"transfer: the train rows have {found}, and transfer needs two classes at least; name the labels in the "
            "ingest section, or set transfer.strategies=[] to pretrain without it"
        )
    if not len(test):
        raise RequestError(
            "transfer: no test row has a label; raise the test share of split.fractions, or set "
            "transfer.strategies=[] to pretrain without it"
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
