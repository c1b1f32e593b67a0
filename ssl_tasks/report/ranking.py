"""Several methods on one recipe: a line for each, in the order of what their encoders are worth.

The order is that of the first strategy at the smallest label budget, where pretraining has most to give; everything
else stands beside it, what needs no labels too. Each method's gain is over its own backbone, untrained.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scipy import stats

from ssl_tasks.transfer.kinds import oriented

LEVEL = 0.95
FEW_RUNS = 3
"""From so many pretrainings on an interval speaks of them; below, it is that of single runs, which does not."""
MEASURES = ("rankme", "alignment", "uniformity", "rows_per_second", "peak_memory_bytes")
"""What pretraining measures without labels; a mean over runs is shown of each."""


@dataclass(frozen=True)
class Outcome:
    """One run of a comparison."""

    candidate: str
    method: str
    backbone: str
    seed: int
    batch_size: int
    state: str
    error: str | None
    metrics: Mapping[str, Any]
    """What the stages measured, by stage."""
    report: str | None


@dataclass(frozen=True)
class Score:
    """What an encoder is worth in one strategy at one label budget; means over pretraining seeds."""

    strategy: str
    label_fraction: float
    num_labels: int
    pretrained: float
    random_init: float
    difference: float
    low: float
    high: float
    num_seeds: int
    """Draws of labels of each pretraining, the fewest of them."""
    metric: str = "accuracy"


@dataclass(frozen=True)
class Line:
    """One candidate."""

    candidate: str
    method: str
    backbone: str
    num_runs: int
    scores: list[Score]
    measures: dict[str, float | None]
    seconds: float | None
    """Of all optimizer steps of one pretraining."""
    errors: list[str]
    """Of runs that did not complete."""
    reports: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def rank(outcomes: Sequence[Outcome]) -> list[Line]:
    """A line for each candidate, best first; those without a completed run come last."""
    runs: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        runs[outcome.candidate].append(outcome)
    lines = [_line(name, group) for name, group in runs.items()]
    return sorted(lines, key=lambda line: _worth(line.scores[0]) if line.scores else math.inf)


def _worth(score: Score) -> float:
    """Less is better."""
    return -oriented(score.metric, score.pretrained)


def _line(name: str, group: Sequence[Outcome]) -> Line:
    done = [outcome for outcome in group if outcome.state == "completed"]
    measured = [outcome.metrics.get("pretrain", {}) for outcome in done]
    seconds = [
        outcome.batch_size * values["steps"] / values["rows_per_second"]
        for outcome, values in zip(done, measured, strict=True)
        if values.get("rows_per_second")
    ]
    return Line(
        candidate=name,
        method=group[0].method,
        backbone=group[0].backbone,
        num_runs=len(done),
        scores=_scores([outcome.metrics.get("transfer", {}).get("summary") or [] for outcome in done]),
        measures={key: _mean([values.get(key) for values in measured]) for key in MEASURES},
        seconds=_mean(seconds),
        errors=[
            f"seed {outcome.seed}: {outcome.error or outcome.state}"
            for outcome in group
            if outcome.state != "completed"
        ],
        reports=[outcome.report for outcome in done if outcome.report],
    )


def _scores(summaries: Sequence[Sequence[Mapping[str, Any]]]) -> list[Score]:
    """Means over runs, in the order of strategies, then budgets ascending."""
    cells: dict[tuple[str, float], list[Mapping[str, Any]]] = defaultdict(list)
    for summary in summaries:
        for entry in summary:
            cells[entry["strategy"], entry["label_fraction"]].append(entry)
    order = {name: place for place, name in enumerate(dict.fromkeys(strategy for strategy, _ in cells))}
    scores = []
    for strategy, fraction in sorted(cells, key=lambda key: (order[key[0]], key[1])):
        entries = cells[strategy, fraction]
        low, high = _interval(entries)
        means = {
            key: statistics.mean(entry[key] for entry in entries) for key in ("pretrained", "random_init", "difference")
        }
        of = entries[0].get("metric", "accuracy")
        seeds, labels = min(entry["num_seeds"] for entry in entries), int(entries[0]["num_labels"])
        scores.append(Score(strategy, fraction, labels, **means, low=low, high=high, num_seeds=seeds, metric=of))
    return scores


def _interval(entries: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Of the mean gain: Student's t over pretrainings, or where they are few the widest of the runs' own intervals.

    A run's own interval (bootstrap over test groups and draws of labels) knows nothing of another pretraining.
    """
    differences = [entry["difference"] for entry in entries]
    if len(entries) < FEW_RUNS:
        return min(entry["low"] for entry in entries), max(entry["high"] for entry in entries)
    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1)) * error
    return mean - reach, mean + reach


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None
