"""The tables of a transfer: metrics, comparisons with intervals, choices, failures, predictions, and the summary."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.schema import GROUP_ID, ROW, TRANSFER
from ssl_tasks.store import Output
from ssl_tasks.transfer import BASELINE, kinds, predictions
from ssl_tasks.transfer import strategy as strategy_of
from ssl_tasks.transfer.bootstrap import (
    Float,
    holm,
    interval,
    p_value,
    replicates,
    replicates_needed,
    seed_weights,
)
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Cell, Failure, Fit
from ssl_tasks.transfer.tables import (
    BASELINES,
    CHOICES,
    COMPARISONS,
    FAILURES,
    FROM_SCRATCH,
    MAJORITY,
    PREFIXES,
    RANDOM_INIT,
    TRAIN_FACTS,
)
from ssl_tasks.transfer.targets import CLASSIFICATION, SEGMENTATION

Replicates = dict[str, Float]
"""Metric to its values (B,) under the bootstrap's replicates of the test groups."""
Budget = tuple[float, int]
"""Label fraction and labels per class."""
Key = tuple[str, str, Budget]
"""Strategy, method and budget."""


def _keys(cell: Cell) -> dict[str, Any]:
    return {
        "strategy": cell.strategy,
        "method": cell.method,
        "label_fraction": cell.label_fraction,
        "labels_per_class": cell.labels_per_class,
        "seed": cell.seed,
    }


def _key(fit: Fit) -> Key:
    return fit.strategy, fit.method, (fit.label_fraction, fit.labels_per_class)


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


def compare(fits: Sequence[Fit], method: str, data: Labelled, resamples: int, seed: int) -> pa.Table:
    """`tables.COMPARISONS`: the encoder of `method` against the baselines, every metric of its kind with its interval.

    What is said of a strategy at a label budget rests on the seeds for which it and the baselines that it needs have a
    fit, a comparison with another on those of them for which that has one. There are as many replicates as the
    correction for the number of comparisons needs, however few `resamples` are.
    """
    cells: dict[Key, dict[int, int]] = defaultdict(dict)
    for number, fit in enumerate(fits):
        cells[_key(fit)][fit.seed] = number
    pairs = list(_pairs(cells, method, _needed(data.task)))
    resamples = max(resamples, replicates_needed(len({_identity(about) for about, _ in pairs})))
    outcomes = [(fit.predicted, fit.likelihood, fit.confidence) for fit in fits]
    kind = kinds.of(data.task)
    labels = data.labels[data.test if data.task != SEGMENTATION else data.test[:0]]  # counts of pixels stand for masks
    drawn = replicates(labels, outcomes, data.groups, data.num_outputs, resamples, seed, kind.weighted)
    shares = functools.cache(lambda num_seeds: seed_weights(num_seeds, resamples, seed))
    rows = []
    for metric in kind.metrics:
        found = []
        for about, sides in pairs:
            assert all(fits[ours].num_labels == fits[theirs].num_labels for ours, theirs in sides)
            sizes = {"num_seeds": len(sides), "num_test_groups": data.num_groups}
            found.append({**about, **sizes, **_difference(fits, drawn, sides, metric, shares(len(sides)))})
        corrected = _corrected(found)
        rows += [{**row, "p_holm": corrected[_identity(row)]} for row in found]
    return pa.Table.from_pylist(rows, schema=COMPARISONS)


def _needed(task: str) -> frozenset[str]:
    """Baselines without which nothing is said of a strategy."""
    return frozenset({RANDOM_INIT, FROM_SCRATCH} if task in strategy_of(BASELINE).tasks else {RANDOM_INIT})


def _pairs(
    cells: Mapping[Key, Mapping[int, int]], method: str, needed: frozenset[str]
) -> Iterator[tuple[dict[str, Any], list[tuple[int, int]]]]:
    """What is compared with what: columns that name it, and for each seed the numbers of two fits."""
    for (strategy, of, budget), ours in cells.items():
        about = {"strategy": strategy, "label_fraction": budget[0], "labels_per_class": budget[1]}
        named = _baselines(strategy, method) if of == method else ()
        there = {baseline: cells[*key, budget] for baseline, key in named if (*key, budget) in cells}
        seeds = [seed for seed in ours if all(seed in there[name] for name in needed & there.keys())]
        for baseline, theirs in there.items():
            if sides := [(ours[seed], theirs[seed]) for seed in seeds if seed in theirs]:
                yield {**about, "baseline": baseline}, sides


def _corrected(found: Sequence[Mapping[str, Any]]) -> dict[Hashable, float]:
    """By comparison its p-value, corrected for the number of them; one that stands there twice counts once."""
    p_values = {_identity(row): row["p_value"] for row in found}
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def _identity(about: Mapping[str, Any]) -> Hashable:
    """Which comparison it is: of what trains the whole network, that with the untrained one is that from scratch."""
    baseline = about["baseline"]
    if baseline == RANDOM_INIT and strategy_of(about["strategy"]).untrained == FROM_SCRATCH:
        baseline = FROM_SCRATCH
    return about["strategy"], about["label_fraction"], about["labels_per_class"], baseline


def _baselines(name: str, method: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """What the fits of a strategy are compared with: a name, and whose fits those are (strategy and method)."""
    for baseline in BASELINES:
        yield baseline, (baseline if baseline in (FROM_SCRATCH, MAJORITY) else name, baseline)
    if counterpart := strategy_of(name).counterpart:
        yield counterpart, (counterpart, method)


def _difference(
    fits: Sequence[Fit],
    drawn: Sequence[Replicates],
    sides: Sequence[tuple[int, int]],
    metric: str,
    shares_BS: Float,
) -> dict[str, Any]:
    point = np.mean([fits[ours].values[metric] - fits[theirs].values[metric] for ours, theirs in sides])
    difference_BS = np.stack([drawn[ours][metric] - drawn[theirs][metric] for ours, theirs in sides], axis=1)
    low, high = interval(difference_BS, shares_BS)
    p = p_value(difference_BS, shares_BS)
    return {"metric": metric, "difference": float(point), "low": low, "high": high, "p_value": p}


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


def summary(
    fits: Sequence[Fit], comparisons: pa.Table, method: str, metric: str, task: str = CLASSIFICATION
) -> list[dict[str, Any]]:
    """A line for each strategy and label budget: means over seeds, and the differences with their intervals.

    Means are over the `num_seeds` seeds that `compare` speaks of, so that values differ by their differences; a
    baseline with fewer of them has its own `raw_num_seeds` and so on. `difference`, `low`, `high` and `p` (corrected)
    are against `random_init`; those with `scratch_`, `raw_` and
    `majority_` before them against the other baselines, absent where there is no such fit. `val` is what the fits
    reached on val. `counterpart` names the strategy that a strategy is meant to beat on the same encoder, where there
    is one; `counterpart_value` is what it reached. A budget without a fit of `random_init`, or where the task has that
    baseline of `from_scratch`, has no line. Of a metric in the unit of the numbers `scale` is what the share that
    matters is one of: what always saying their mean reaches.
    """
    needed = _needed(task)
    values: dict[Key, list[Fit]] = defaultdict(list)
    for fit in fits:
        values[_key(fit)].append(fit)
    against: dict[tuple[str, Budget], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in comparisons.to_pylist():
        if row["metric"] == metric:
            budget = row["label_fraction"], row["labels_per_class"]
            against[row["strategy"], budget][row["baseline"]] = row
    lines = []
    for (strategy, of, budget), every in values.items():
        found = against[strategy, budget]
        if of != method or not needed <= found.keys():
            continue
        theirs = {name: values[*key, budget] for name, key in _baselines(strategy, method) if name in found}
        seeds = {fit.seed for fit in every}.intersection(*({fit.seed for fit in theirs[name]} for name in needed))
        ours = [fit for fit in every if fit.seed in seeds]
        line: dict[str, Any] = {
            "strategy": strategy,
            "label_fraction": budget[0],
            "labels_per_class": budget[1],
            "num_labels": ours[0].num_labels,
            "num_seeds": len(seeds),
            "metric": metric,
            "pretrained": _mean(ours, metric),
        }
        val = [fit.chosen[f"val_{metric}"] for fit in ours if f"val_{metric}" in fit.chosen]
        line |= {"val": float(np.mean(val))} if val else {}
        for baseline, row in found.items():
            prefix, others = PREFIXES.get(baseline, "counterpart_"), [f for f in theirs[baseline] if f.seed in seeds]
            assert row["num_seeds"] == len(others)
            value = _mean(others, metric)
            line |= {f"{prefix}num_seeds": len(others)} if len(others) < len(seeds) else {}
            line |= {baseline: value} if baseline in PREFIXES else {"counterpart": baseline, "counterpart_value": value}
            line |= {f"{prefix}{key}": row[key] for key in ("difference", "low", "high")}
            line[f"{prefix}p"] = row["p_holm"]
        lines.append(line | _scale(line))
    return lines


def _scale(line: Mapping[str, Any]) -> dict[str, Any]:
    return {"scale": line.get(MAJORITY, line[RANDOM_INIT])} if line["metric"] in kinds.IN_UNITS else {}


def _mean(fits: Sequence[Fit], metric: str) -> float:
    return float(np.mean([fit.values[metric] for fit in fits]))


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
