"""What the report says of a transfer: a line for each strategy and label budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.transfer import kinds
from ssl_tasks.transfer.comparisons import Budget, Key, baselines_of, key_of, needed_for
from ssl_tasks.transfer.fits import Fit
from ssl_tasks.transfer.tables import MAJORITY, PREFIXES, RANDOM_INIT
from ssl_tasks.transfer.targets import CLASSIFICATION


def summarize(
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
    needed = needed_for(task)
    values: dict[Key, list[Fit]] = defaultdict(list)
    for fit in fits:
        values[key_of(fit)].append(fit)
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
        theirs = {name: values[*key, budget] for name, key in baselines_of(strategy, method) if name in found}
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
