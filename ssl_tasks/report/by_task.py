"""What the page shows of tasks besides classification: predicted against true numbers, each class of several, rankings;
and every metric of the first strategy, whatever the task.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.charts import Figure
from ssl_tasks.report.figures import Axis, Series, line_chart, linear_axis
from ssl_tasks.report.judging import Line
from ssl_tasks.report.phrases import labels
from ssl_tasks.report.units import METRIC_TITLES, percent, written
from ssl_tasks.report.verdict import Verdict
from ssl_tasks.schema import LABEL, LABELS, METRICS_FILE, NUMBER, PREDICTIONS_FILE
from ssl_tasks.transfer.tables import RANDOM_INIT
from ssl_tasks.transfer.targets import MULTI_LABEL, REGRESSION

MOST_DOTS = 600
MOST_CLASSES = 30


def every_metric(transfer: Artifact, verdict: Verdict, method: str) -> dict[str, Any]:
    """Means over seeds of all metrics, at each label budget; of the encoder and of the untrained network."""
    lines = _lines(verdict)
    budgets = [(line["label_fraction"], line["labels_per_class"]) for line in lines]
    values: dict[tuple[str, str, tuple[float, int]], list[float]] = defaultdict(list)
    for row in transfer.table(METRICS_FILE).to_pylist():
        if row["strategy"] == verdict.strategy:
            budget = row["label_fraction"], row["labels_per_class"]
            values[row["metric"], row["method"], budget].append(row["value"])
    names = dict.fromkeys(metric for metric, _, _ in values)
    return {
        "budgets": [labels(line) for line in lines],
        "lines": [
            {
                "name": METRIC_TITLES.get(metric, metric),
                "cells": [
                    [_mean(metric, values.get((metric, of, budget), ())) for of in (method, RANDOM_INIT)]
                    for budget in budgets
                ],
            }
            for metric in names
        ],
    }


def _mean(metric: str, values: Sequence[float]) -> str:
    return written(metric, float(np.mean(values))) if values else "-"


def section(transfer: Artifact, verdict: Verdict, method: str) -> dict[str, Any]:
    """Figures of numbers, or a table by class, for the template; first strategy, smallest and largest budget."""
    task, lines = transfer.measured["task"], _lines(verdict)
    ends = lines[:1] + lines[1:][-1:]
    tables = [_predictions(transfer, verdict.strategy, method, line) for line in ends]
    if task == REGRESSION:
        return {"figures": [_figure(table, labels(line)) for table, line in zip(tables, ends, strict=True)]}
    if task == MULTI_LABEL:
        found = _by_several(tables[-1], transfer.measured["class_names"])
        columns = ["Test rows of it", "Predicted", "Precision", "Recall", "F1"]
    else:
        found = _by_query(tables[-1])
        columns = ["Test rows", "Average precision", "Recall@1", "Recall@10"]
    found.sort(key=lambda line: line["order"])
    return {
        "figures": [],
        "columns": columns,
        "lines": found[:MOST_CLASSES],
        "more": max(0, len(found) - MOST_CLASSES),
        "budget": labels(ends[-1]),
    }


def _lines(verdict: Verdict) -> list[Line]:
    ours = [line for line in verdict.lines if line["strategy"] == verdict.strategy]
    return sorted(ours, key=lambda line: line["label_fraction"])


def _predictions(transfer: Artifact, strategy: str, method: str, line: Line) -> pa.Table:
    """Rows of all seeds; the file holds every fit, so it is read in parts."""
    wanted = {"strategy": strategy, "method": method}
    wanted |= {key: line[key] for key in ("label_fraction", "labels_per_class")}
    parts = []
    for batch in transfer.batches(PREDICTIONS_FILE):
        for name, value in wanted.items():
            batch = batch.filter(pc.equal(batch[name], value))
        parts.append(batch)
    return pa.concat_tables(parts)


def _figure(table: pa.Table, budget: str) -> Figure:
    truth, predicted = table[NUMBER].to_numpy(), table["predicted"].to_numpy()
    kept = np.linspace(0, len(truth) - 1, min(len(truth), MOST_DOTS)).astype(int)
    both = [float(truth.min()), float(truth.max()), float(predicted.min()), float(predicted.max())]
    x, y = linear_axis("True", both), linear_axis("Predicted", both)
    ends = [(x.low, x.low), (x.high, x.high)]
    lines = [
        Series("equal", "random", ends),
        Series("encoder", "pretrained", [], [(float(truth[n]), float(predicted[n])) for n in kept]),
    ]
    caption = f"With {budget}"
    return Figure(caption, line_chart(caption, lines, _sparse(x), y))


def _sparse(axis: Axis) -> Axis:
    """With every second tick: numbers are wide, and stand beside each other along x."""
    return Axis(axis.label, axis.low, axis.high, axis.ticks[::2])


def _by_several(table: pa.Table, classes: Sequence[str]) -> list[dict[str, Any]]:
    seeds = len(pc.unique(table["seed"]))
    true, called = (_counts(table[name]) for name in (LABELS, "predicted"))
    hits: dict[str, int] = defaultdict(int)
    for mine, theirs in zip(table[LABELS].to_pylist(), table["predicted"].to_pylist(), strict=True):
        for name in {*mine} & {*theirs}:
            hits[name] += 1
    lines = []
    for name in classes:
        hit, of, said = hits[name], true.get(name, 0), called.get(name, 0)
        f1 = 2 * hit / (of + said) if of + said else 0.0
        shares = [percent(hit / said) if said else "never", percent(hit / of) if of else "-", percent(f1)]
        cells = [f"{of / seeds:,.0f}", f"{said / seeds:,.1f}", *shares]
        lines.append({"name": name, "cells": cells, "order": (f1, name)})
    return lines


def _counts(column: pa.ChunkedArray) -> Mapping[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(pc.list_flatten(column)).to_pylist()}


def _by_query(table: pa.Table) -> list[dict[str, Any]]:
    seeds = len(pc.unique(table["seed"]))
    measures = ["mean_average_precision", "recall_at_1", "recall_at_10"]
    found = table.group_by(LABEL, use_threads=False).aggregate(
        [(name, "mean") for name in measures] + [(LABEL, "count")]
    )
    return [
        {
            "name": row[LABEL],
            "cells": [f"{row[f'{LABEL}_count'] / seeds:,.0f}", *(percent(row[f"{name}_mean"]) for name in measures)],
            "order": (row["mean_average_precision_mean"], row[LABEL]),
        }
        for row in found.to_pylist()
    ]
