"""The tables of a transfer: metrics, comparisons with intervals, choices, predictions, and the summary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.schema import GROUP_ID, LABEL, ROW, TRANSFER
from ssl_tasks.store import Output
from ssl_tasks.transfer.bootstrap import Float, interval, replicates, seed_weights
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.evaluate import Fit
from ssl_tasks.transfer.metrics import METRICS
from ssl_tasks.transfer.tables import BASELINES, CHOICES, COMPARISONS, FROM_SCRATCH, PREDICTIONS, RANDOM_INIT

Replicates = dict[str, Float]
"""Metric to its values (B,) under the bootstrap's replicates of the test groups."""


def _keys(fit: Fit) -> dict[str, Any]:
    return {
        "strategy": fit.strategy,
        "method": fit.method,
        "label_fraction": fit.label_fraction,
        "seed": fit.seed,
    }


def metrics_table(fits: Sequence[Fit]) -> pa.Table:
    """`schema.TRANSFER`: a row for each fit and metric."""
    rows = [
        {**_keys(fit), "num_labels": fit.num_labels, "metric": name, "value": fit.values[name]}
        for fit in fits
        for name in METRICS
    ]
    return pa.Table.from_pylist(rows, schema=TRANSFER)


def choices_table(fits: Sequence[Fit]) -> pa.Table:
    """`tables.CHOICES`: a row for each fit and what it chose."""
    rows = [{**_keys(fit), "name": name, "value": value} for fit in fits for name, value in fit.chosen.items()]
    return pa.Table.from_pylist(rows, schema=CHOICES)


def rules_table(fits: Sequence[Fit]) -> pa.Table | None:
    """A row for each fit that has something to say in words (`text`), None where none has."""
    rows = [{**_keys(fit), "text": fit.text} for fit in fits if fit.text]
    return pa.Table.from_pylist(rows) if rows else None


def compare(fits: Sequence[Fit], method: str, data: Labelled, resamples: int, seed: int) -> pa.Table:
    """`tables.COMPARISONS`: the encoder of `method` against both baselines, every metric with its interval."""
    outcomes = [(fit.predicted, fit.likelihood) for fit in fits]
    drawn = replicates(data.labels[data.test], outcomes, data.groups, len(data.classes), resamples, seed)
    cells: dict[tuple[str, str, float], list[tuple[Fit, Replicates]]] = defaultdict(list)
    for fit, replicate in zip(fits, drawn, strict=True):
        cells[fit.strategy, fit.method, fit.label_fraction].append((fit, replicate))
    num_seeds = len({fit.seed for fit in fits})
    shares_BS = seed_weights(num_seeds, resamples, seed)
    rows = []
    for (strategy, of, fraction), ours in cells.items():
        for baseline in BASELINES if of == method else ():
            theirs = cells[FROM_SCRATCH if baseline == FROM_SCRATCH else strategy, baseline, fraction]
            about = {"strategy": strategy, "label_fraction": fraction, "baseline": baseline}
            sizes = {"num_seeds": num_seeds, "num_test_groups": data.num_groups}
            rows += [{**about, **sizes, **_difference(ours, theirs, metric, shares_BS)} for metric in METRICS]
    return pa.Table.from_pylist(rows, schema=COMPARISONS)


def _difference(
    ours: list[tuple[Fit, Replicates]], theirs: list[tuple[Fit, Replicates]], metric: str, shares_BS: Float
) -> dict[str, Any]:
    pairs = list(zip(ours, theirs, strict=True))
    assert all(a.seed == b.seed and a.num_labels == b.num_labels for (a, _), (b, _) in pairs)
    point = np.mean([a.values[metric] - b.values[metric] for (a, _), (b, _) in pairs])
    low, high = interval(np.stack([a[metric] - b[metric] for (_, a), (_, b) in pairs], axis=1), shares_BS)
    return {"metric": metric, "difference": float(point), "low": low, "high": high}


def write_predictions(out: Output, name: str, fits: Sequence[Fit], data: Labelled) -> None:
    """`tables.PREDICTIONS`, one row group for each fit, so that memory holds one fit's rows."""
    classes = pa.array(data.classes, pa.string())
    test = data.splits.take(data.test)
    with out.writer(name, PREDICTIONS) as writer:
        for fit in fits:
            constant = {key: pa.repeat(pa.scalar(value), test.num_rows) for key, value in _keys(fit).items()}
            columns = {
                **constant,
                ROW: test[ROW],
                GROUP_ID: test[GROUP_ID],
                LABEL: test[LABEL],
                "predicted": classes.take(pa.array(fit.predicted)),
                "confidence": pa.array(fit.confidence),
                "likelihood": pa.array(fit.likelihood),
            }
            writer.write_table(pa.table([columns[key] for key in PREDICTIONS.names], schema=PREDICTIONS))


def scratch_facts(fits: Sequence[Fit], steps: int) -> dict[str, Any]:
    """How far the from-scratch baseline got: its steps, and the share of its labelled rows it fits, by fraction."""
    fitted: dict[float, list[float]] = defaultdict(list)
    for fit in fits:
        if fit.strategy == FROM_SCRATCH:
            fitted[fit.label_fraction].append(fit.chosen["train_accuracy"])
    by_fraction = {f"{fraction:g}": float(np.mean(values)) for fraction, values in fitted.items()}
    return {"steps": steps, "train_accuracy": by_fraction}


def summary(metrics: pa.Table, comparisons: pa.Table, method: str, metric: str) -> list[dict[str, Any]]:
    """A line for each strategy and label fraction: means over seeds, and the differences with their intervals.

    `difference`, `low` and `high` are against `random_init`, those with `scratch_` before them against
    `from_scratch`.
    """
    values: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    labels: dict[float, int] = {}
    for row in metrics.to_pylist():
        if row["metric"] == metric:
            values[row["strategy"], row["method"], row["label_fraction"]].append(row["value"])
            labels[row["label_fraction"]] = row["num_labels"]
    against = {
        (row["strategy"], row["label_fraction"], row["baseline"]): row
        for row in comparisons.to_pylist()
        if row["metric"] == metric
    }
    lines = []
    for strategy, of, fraction in values:
        if of != method:
            continue
        random, scratch = (against[strategy, fraction, baseline] for baseline in BASELINES)
        lines.append(
            {
                "strategy": strategy,
                "label_fraction": fraction,
                "num_labels": labels[fraction],
                "metric": metric,
                "pretrained": float(np.mean(values[strategy, method, fraction])),
                "random_init": float(np.mean(values[strategy, RANDOM_INIT, fraction])),
                "from_scratch": float(np.mean(values[FROM_SCRATCH, FROM_SCRATCH, fraction])),
                **{key: random[key] for key in ("difference", "low", "high")},
                **{f"scratch_{key}": scratch[key] for key in ("difference", "low", "high")},
            }
        )
    return lines


def fit_seconds(fits: Sequence[Fit]) -> dict[str, float]:
    """Seconds of all fits of each strategy together, each on one thread."""
    seconds: dict[str, float] = {}
    for fit in fits:
        seconds[fit.strategy] = seconds.get(fit.strategy, 0.0) + fit.seconds
    return seconds
