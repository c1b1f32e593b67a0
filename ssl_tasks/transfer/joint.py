"""Every kind of target that rows have, for strategies that learn them at once.

everything = load(split, data)          # {"classification": (N,), "regression": (N,)}
targets = of_rows(everything, task)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import LABEL, LABELS, NUMBER, ROW, SPLITS_FILE
from ssl_tasks.transfer.base import Task
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL, REGRESSION, indicators, ingested

FEW = 2
TITLES = {CLASSIFICATION: "a class", MULTI_LABEL: "several classes", REGRESSION: "a number"}


def load(split: Artifact, data: Labelled) -> dict[str, NDArray[Any]]:
    """By `targets.TASKS`, what any row of the split artifact has, as `Labelled.labels`; what is predicted comes first.

    Labels that are predicted as numbers are no classes as well.
    """
    splits = split.table(SPLITS_FILE, [ROW, LABEL])
    found = {data.task: data.labels}
    numbers, lists = (ingested(split, splits, column) for column in (NUMBER, LABELS))
    has_numbers, has_lists = (column.null_count < len(column) for column in (numbers, lists))
    if splits[LABEL].null_count < len(splits) and (has_numbers or data.task != REGRESSION):
        codes = pc.dictionary_encode(splits[LABEL].combine_chunks()).indices.fill_null(-1)
        found.setdefault(CLASSIFICATION, codes.to_numpy().astype(np.int64))
    if has_lists and MULTI_LABEL not in found:
        classes, table = indicators(lists)
        if classes:
            found[MULTI_LABEL] = table
    if has_numbers:
        found.setdefault(REGRESSION, numbers.to_numpy(zero_copy_only=False).astype(np.float64))
    return found


def check(everything: Mapping[str, NDArray[Any]], data: Labelled) -> None:
    """Refuse rows with one kind of target.

    Raises:
        RequestError: of the labelled train rows no other kind is known than what is predicted.
    """
    labelled = data.train[_known(everything[data.task])[data.train]]
    kinds = [name for name, values in everything.items() if _known(values)[labelled].any()]
    if len(kinds) < FEW:
        raise RequestError(
            "transfer.strategies: multi_task learns several kinds of targets at once, and labelled train rows have "
            f"{' and '.join(TITLES[name] for name in kinds)} only; name others with ingest.labels_column or "
            "ingest.number_column, or leave multi_task out"
        )


def _known(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(N,) whether a row has the target."""
    first = values[:, 0] if values.ndim > 1 else values
    found: NDArray[np.bool_] = first != -1 if values.dtype.kind == "i" else np.isfinite(first)
    return found


@dataclass(frozen=True)
class Target:
    """One kind of target of the rows of a fit."""

    name: str
    """Of `targets.TASKS`."""
    num_outputs: int
    """Of its head."""
    values: NDArray[np.float64]
    """(n, C): a class number, 0 or 1 for each class, or a number in deviations from their mean; NaN for none."""


def of_rows(everything: Mapping[str, NDArray[Any]], task: Task) -> list[Target]:
    """The targets that one train row at least has, that of the task first.

    Args:
        everything: as `load` gives it.
    """
    others = {name: values for name, values in everything.items() if name != task.task}
    found = [Target(task.task, task.num_classes, _table(task.task, task.labels))]
    for name, values in others.items():
        table = _table(name, values[task.train])
        if np.isfinite(table).any():
            found.append(Target(name, int(values.max()) + 1 if name == CLASSIFICATION else table.shape[1], table))
    return found


def _table(name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """`Target.values` of these rows."""
    table: NDArray[np.float64] = np.where(_known(values), values.T, np.nan).T.reshape(len(values), -1)
    if name != REGRESSION or not np.isfinite(table).any():
        return table
    mean, deviation = float(np.nanmean(table)), float(np.nanstd(table))
    scaled: NDArray[np.float64] = (table - mean) / (deviation if deviation > 0 else 1.0)
    return scaled
