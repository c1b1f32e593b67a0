"""Runs a transfer for each target domain and pools what became of the test rows.

With several targets every test row is scored by the fit that knew no label of its domain, and a pooled fit holds all
of them: what is said of it, intervals too, is said of a domain that no label is of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.transfer.base import Context
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.domains import Shift
from ssl_tasks.transfer.evaluate import Plan, evaluate
from ssl_tasks.transfer.fits import Failure, Fit
from ssl_tasks.transfer.gaps import MEASURES, gap
from ssl_tasks.transfer.metrics import METRICS, RANKED, weighted
from ssl_tasks.transfer.rows import Rows
from ssl_tasks.transfer.runners import Runner
from ssl_tasks.transfer.tables import DOMAINS, FROM_SCRATCH, MAJORITY

Key = tuple[str, str, float, int, int]
"""Strategy, method, label fraction, labels per class and seed."""


@dataclass(frozen=True)
class Shifted:
    """What became of all targets."""

    data: Labelled
    """The rows of all targets together, as the tables speak of them."""
    fits: list[Fit]
    failures: list[Failure]
    of_targets: list[tuple[Shift, list[Fit]]]


def evaluate_shifts(
    plan: Plan,
    data: Labelled,
    shifts: Sequence[Shift],
    encoders: Mapping[str, Callable[[], Rows]],
    context: Context,
    runner: Runner,
    further: Callable[[str], Sequence[Rows]] = lambda method: (),
) -> Shifted:
    """As `evaluate`, for each target; every fit on an encoder also says how far the domains lie apart in it."""
    of_targets, failures = [], []
    for shift in shifts:
        reused = replace(context, train=shift.data.train, domains=shift.domains)
        found, failed = evaluate(plan, shift.data, encoders, reused, runner, further)
        before = {method: _gap_before(load(), shift) for method, load in encoders.items()}
        of_targets.append((shift, [_with(fit, before.get(fit.method, {})) for fit in found]))
        failures += [replace(one, error=f"target {shift.target}: {one.error}") for one in failed]
    test, place = _test_rows(data, shifts)
    pooled = replace(
        data,
        val=np.unique(np.concatenate([shift.data.val for shift in shifts])),
        test=test,
        groups=np.unique(data.groups[np.searchsorted(data.test, test)], return_inverse=True)[1],
    )
    return Shifted(pooled, pool(of_targets, pooled, place), failures, of_targets)


def _gap_before(features: Rows, shift: Shift) -> dict[str, float]:
    source, target = (features[rows] for rows in shift.domains.held_out)
    return {f"{name}_before": value for name, value in gap(source, target).items()}


def _with(fit: Fit, before: Mapping[str, float]) -> Fit:
    return replace(fit, chosen={**before, **fit.chosen})


def _test_rows(data: Labelled, shifts: Sequence[Shift]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of all targets' test rows, ascending, and where each stands when the targets follow one another."""
    together = np.concatenate([shift.data.test for shift in shifts])
    place = np.argsort(together, kind="stable")
    return together[place], place


def pool(of_targets: Sequence[tuple[Shift, Sequence[Fit]]], data: Labelled, place: np.ndarray) -> list[Fit]:
    """One fit out of those of all targets; none where one of them failed.

    Labels, seconds and what was chosen are means over the targets, `RANKED` metrics too; the other metrics are those
    of all rows together.
    """
    parts: dict[Key, list[Fit]] = {}
    for _, fits in of_targets:
        for fit in fits:
            # of a number of labels a class the fraction is each target's own
            fraction = 0.0 if fit.labels_per_class else fit.label_fraction
            parts.setdefault((fit.strategy, fit.method, fraction, fit.labels_per_class, fit.seed), []).append(fit)
    return [_pool(of, of_targets, data, place) for of in parts.values() if len(of) == len(of_targets)]


def _pool(
    parts: Sequence[Fit], of_targets: Sequence[tuple[Shift, Sequence[Fit]]], data: Labelled, place: np.ndarray
) -> Fit:
    if len(parts) == 1:
        return parts[0]
    predicted, confidence, likelihood = (
        np.concatenate([getattr(fit, name) for fit in parts])[place]
        for name in ("predicted", "confidence", "likelihood")
    )
    labels = data.labels[data.test]
    values = weighted(labels, predicted, likelihood, confidence, np.ones((len(labels), 1)), len(data.classes))
    ranked = {name: _mean([fit.values for fit in parts], name) for name in RANKED if _all_have(parts, name)}
    names = [name for name in parts[0].chosen if all(name in fit.chosen for fit in parts)]
    titles = [shift.target for shift, _ in of_targets]
    return replace(
        parts[0],
        label_fraction=float(np.mean([fit.label_fraction for fit in parts])),
        num_labels=round(np.mean([fit.num_labels for fit in parts])),
        predicted=predicted,
        confidence=confidence,
        likelihood=likelihood,
        values={name: float(value[0]) for name, value in values.items()} | ranked,
        chosen={name: _mean([fit.chosen for fit in parts], name) for name in names},
        text="\n".join(f"target {title}:\n{fit.text}" for title, fit in zip(titles, parts, strict=True) if fit.text),
        seconds=sum(fit.seconds for fit in parts),
    )


def _all_have(parts: Sequence[Fit], name: str) -> bool:
    return all(name in fit.values for fit in parts)


def _mean(values: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([of[name] for of in values]))


def table(of_targets: Sequence[tuple[Shift, Sequence[Fit]]], metric: str) -> pa.Table:
    """`tables.DOMAINS`: every metric of the target's test rows, that of the sources' test rows, and the gaps."""
    rows = [
        {
            "target": shift.target,
            "strategy": fit.strategy,
            "method": fit.method,
            "label_fraction": fit.label_fraction,
            "labels_per_class": fit.labels_per_class,
            "num_labels": fit.num_labels,
            "seed": fit.seed,
            "name": name,
            "value": value,
        }
        for shift, fits in of_targets
        for fit in fits
        for name, value in _facts(fit, metric).items()
    ]
    return pa.Table.from_pylist(rows, schema=DOMAINS)


def _facts(fit: Fit, metric: str) -> dict[str, float]:
    names = [f"source_{metric}", *(f"{name}_{when}" for name in MEASURES for when in ("before", "after"))]
    metrics = {name: fit.values[name] for name in (*METRICS, *RANKED) if name in fit.values}
    return metrics | {name: fit.chosen[name] for name in names if name in fit.chosen}


def summary(of_targets: Sequence[tuple[Shift, Sequence[Fit]]], method: str, metric: str) -> list[dict[str, Any]]:
    """A line for each target, strategy and label budget, means over seeds, of the encoder of `method` and baselines.

    `value` is that of the target's test rows and `source` that of the sources'; `mmd_before` and so on are absent where
    nothing was measured.
    """
    cells: dict[tuple[str, str, float, int], list[tuple[Shift, Fit]]] = {}
    for shift, fits in of_targets:
        for fit in fits:
            if fit.method in (method, FROM_SCRATCH, MAJORITY):
                key = shift.target, fit.strategy, fit.label_fraction, fit.labels_per_class
                cells.setdefault(key, []).append((shift, fit))
    lines = []
    for (target, strategy, fraction, per_class), found in cells.items():
        facts = [_facts(fit, metric) for _, fit in found]
        named = {"value": metric, "source": f"source_{metric}"}
        named |= {key: key for key in facts[0] if key.startswith(MEASURES)}
        lines.append(
            {
                "target": target,
                "sources": found[0][0].sources,
                "strategy": strategy,
                "label_fraction": fraction,
                "labels_per_class": per_class,
                "num_labels": found[0][1].num_labels,
                "metric": metric,
                **{key: _mean(facts, name) for key, name in named.items() if all(name in of for of in facts)},
            }
        )
    return lines
