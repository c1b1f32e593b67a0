"""The predictions that the report looks into: first strategy, pretrained encoder, two label budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.judging import Line
from ssl_tasks.report.phrases import labels
from ssl_tasks.schema import LABEL, PREDICTIONS_FILE, ROW

Int = NDArray[np.int64]
COLUMNS = ["strategy", "method", "label_fraction", "labels_per_class", "seed", ROW, LABEL, "predicted", "confidence"]
Budget = tuple[float, int]
"""Label fraction and labels per class."""


@dataclass(frozen=True)
class Fits:
    """All fits of one label budget, one for each seed: P predictions are the test rows, as often as there are seeds."""

    budget: str
    """`1% of the labels (13)`."""
    num_seeds: int
    classes: list[str]
    """Sorted names that stand as label or prediction at either budget; a class's number is its place here."""
    rows: Int
    """(P,) row numbers."""
    truth: Int
    """(P,) numbers of the true classes."""
    predicted: Int
    """(P,) numbers of the predicted classes."""
    confidence: NDArray[np.float64]
    """(P,) probability of the predicted class."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(P,)."""
        return np.equal(self.truth, self.predicted)


def load(transfer: Artifact, lines: Sequence[Line], strategy: str, method: str) -> list[Fits]:
    """The fits at the smallest and at the largest label budget; one element where there is one budget.

    Args:
        lines: of the transfer's summary.
        method: whose encoder it is.
    """
    ours = sorted((line for line in lines if line["strategy"] == strategy), key=lambda line: line["label_fraction"])
    chosen = list({_budget(line): line for line in ours[:1] + ours[-1:]}.values())
    tables = _tables(transfer, strategy, method, [_budget(line) for line in chosen])
    columns = [table[name] for table in tables for name in (LABEL, "predicted")]
    classes = sorted({name for column in columns for name in pc.unique(column).to_pylist()})
    return [_fits(table, labels(line), classes) for table, line in zip(tables, chosen, strict=True) if table.num_rows]


def _budget(line: Line) -> Budget:
    return line["label_fraction"], line.get("labels_per_class", 0)


def _tables(transfer: Artifact, strategy: str, method: str, budgets: Sequence[Budget]) -> list[pa.Table]:
    """The rows of each budget. The file holds every fit, so it is read in parts."""
    found: list[list[pa.Table]] = [[] for _ in budgets]
    for batch in transfer.batches(PREDICTIONS_FILE, COLUMNS):
        ours = batch.filter(pc.and_(pc.equal(batch["strategy"], strategy), pc.equal(batch["method"], method)))
        for parts, (fraction, per_class) in zip(found, budgets, strict=True):
            same = pc.and_(pc.equal(ours["label_fraction"], fraction), pc.equal(ours["labels_per_class"], per_class))
            parts.append(ours.filter(same))
    return [pa.concat_tables(parts) for parts in found]


def _fits(table: pa.Table, budget: str, classes: list[str]) -> Fits:
    values = pa.array(classes, pa.string())
    return Fits(
        budget=budget,
        num_seeds=len(pc.unique(table["seed"])),
        classes=classes,
        rows=table[ROW].to_numpy(),
        truth=pc.index_in(table[LABEL], values).to_numpy().astype(np.int64),
        predicted=pc.index_in(table["predicted"], values).to_numpy().astype(np.int64),
        confidence=table["confidence"].to_numpy(),
    )
