"""The tables of a transfer that its fits give as they are, and what else there is to say of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.schema import GROUP_ID, ROW, TRANSFER
from ssl_tasks.store import Output
from ssl_tasks.transfer import predictions
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Cell, Failure, Fit
from ssl_tasks.transfer.tables import (
    CHOICES,
    FAILURES,
    FROM_SCRATCH,
    TRAIN_FACTS,
)


def _keys(cell: Cell) -> dict[str, Any]:
    return {
        "strategy": cell.strategy,
        "method": cell.method,
        "label_fraction": cell.label_fraction,
        "labels_per_class": cell.labels_per_class,
        "seed": cell.seed,
    }


def metrics_table(fits: Sequence[Fit]) -> pa.Table:
    """`schema.TRANSFER`: a row for each fit and metric."""
    rows = [
        {**_keys(fit), "num_labels": fit.num_labels, "metric": name, "value": fit.values[name]}
        for fit in fits
        for name in fit.values
    ]
    return pa.Table.from_pylist(rows, schema=TRANSFER)


def choices_table(fits: Sequence[Fit]) -> pa.Table:
    """`tables.CHOICES`: a row for each fit and what it chose."""
    rows = [{**_keys(fit), "name": name, "value": value} for fit in fits for name, value in fit.chosen.items()]
    return pa.Table.from_pylist(rows, schema=CHOICES)


def failures_table(failures: Sequence[Failure]) -> pa.Table:
    """`tables.FAILURES`."""
    return pa.Table.from_pylist([{**_keys(one), "error": one.error} for one in failures], schema=FAILURES)


def rules_table(fits: Sequence[Fit]) -> pa.Table | None:
    """A row for each fit that has something to say in words (`text`), None where none has."""
    rows = [{**_keys(fit), "text": fit.text} for fit in fits if fit.text]
    return pa.Table.from_pylist(rows) if rows else None


def write_predictions(out: Output, name: str, fits: Sequence[Fit], data: Labelled) -> None:
    """`predictions.schema_of` the task, one row group for each fit, so that memory holds one fit's rows."""
    schema, test = predictions.schema_of(data.task), data.splits.take(data.test)
    with out.writer(name, schema) as writer:
        for fit in fits:
            constant = {key: pa.repeat(pa.scalar(value), test.num_rows) for key, value in _keys(fit).items()}
            columns = {**constant, ROW: test[ROW], GROUP_ID: test[GROUP_ID], **predictions.columns(fit, data, test)}
            writer.write_table(pa.table([columns[key] for key in schema.names], schema=schema))


def scratch_facts(fits: Sequence[Fit], steps: int) -> dict[str, Any]:
    """How far the from-scratch baseline got: its steps, and by fraction how well it fits its own labelled rows.

    That is `train_accuracy`, the share of them that it gets right, `train_r2` where they are numbers, the share of
    their pixels, or of their boxes that are met by more than half. Empty where there is no such baseline.
    """
    fitted: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for fit in fits:
        if fit.strategy == FROM_SCRATCH:
            name = next(name for name in fit.chosen if name in TRAIN_FACTS)
            fitted[name][fit.label_fraction].append(fit.chosen[name])
    facts = {
        name: {f"{fraction:g}": float(np.mean(values)) for fraction, values in of.items()}
        for name, of in fitted.items()
    }
    return {"steps": steps, **facts} if facts else {}


def fit_seconds(fits: Sequence[Fit]) -> dict[str, float]:
    """Seconds of all fits of each strategy together, each on one thread."""
    seconds: dict[str, float] = {}
    for fit in fits:
        seconds[fit.strategy] = seconds.get(fit.strategy, 0.0) + fit.seconds
    return seconds


def capped(fits: Sequence[Fit]) -> dict[str, int]:
    """Strategies whose fits trained on fewer rows than their largest budget holds, and on how many."""
    return {
        fit.strategy: int(fit.chosen["train_rows"])
        for fit in sorted(fits, key=lambda fit: fit.num_labels)
        if fit.chosen.get("train_rows", fit.num_labels) < fit.num_labels
    }


def warnings(num_fits: int, failures: Sequence[Failure]) -> list[str]:
    """What the user should know: fits that failed, beside `num_fits` that did not."""
    if not failures:
        return []
    first, total = failures[0], num_fits + len(failures)
    return [
        f"{len(failures)} of {total} fits failed and are left out of means and comparisons; the first, "
        f"{first.strategy} on {first.method} with seed {first.seed}: {first.error}"
    ]
