"""An encoder against baselines: paired differences over seeds and test groups, with intervals and p-values."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.transfer import BASELINE, kinds
from ssl_tasks.transfer import strategy as strategy_of
from ssl_tasks.transfer.bootstrap import Float, holm, interval, p_value, replicates, replicates_needed, seed_weights
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Fit
from ssl_tasks.transfer.tables import BASELINES, COMPARISONS, FROM_SCRATCH, MAJORITY, RANDOM_INIT
from ssl_tasks.transfer.targets import SEGMENTATION

Replicates = dict[str, Float]
"""Metric to its values (B,) under the bootstrap's replicates of the test groups."""
Budget = tuple[float, int]
"""Label fraction and labels per class."""
Key = tuple[str, str, Budget]
"""Strategy, method and budget."""


def key_of(fit: Fit) -> Key:
    """What fits of one mean share."""
    return fit.strategy, fit.method, (fit.label_fraction, fit.labels_per_class)


def compare(fits: Sequence[Fit], method: str, data: Labelled, resamples: int, seed: int) -> pa.Table:
    """`tables.COMPARISONS`: the encoder of `method` against the baselines, every metric of its kind with its interval.

    What is said of a strategy at a label budget rests on the seeds for which it and the baselines that it needs have a
    fit, a comparison with another on those of them for which that has one. There are as many replicates as the
    correction for the number of comparisons needs, however few `resamples` are.
    """
    cells: dict[Key, dict[int, int]] = defaultdict(dict)
    for number, fit in enumerate(fits):
        cells[key_of(fit)][fit.seed] = number
    pairs = list(_pairs(cells, method, needed_for(data.task)))
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


def needed_for(task: str) -> frozenset[str]:
    """Baselines without which nothing is said of a strategy."""
    return frozenset({RANDOM_INIT, FROM_SCRATCH} if task in strategy_of(BASELINE).tasks else {RANDOM_INIT})


def _pairs(
    cells: Mapping[Key, Mapping[int, int]], method: str, needed: frozenset[str]
) -> Iterator[tuple[dict[str, Any], list[tuple[int, int]]]]:
    """What is compared with what: columns that name it, and for each seed the numbers of two fits."""
    for (strategy, of, budget), ours in cells.items():
        about = {"strategy": strategy, "label_fraction": budget[0], "labels_per_class": budget[1]}
        named = baselines_of(strategy, method) if of == method else ()
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


def baselines_of(name: str, method: str) -> Iterator[tuple[str, tuple[str, str]]]:
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
