"""Which strategy to use at which label budget, and what it is not better than.

The strategy is chosen by its value on val rows: choosing by the test rows would make their value look better than it
is. What did not beat a baseline is named, whatever the strategy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.report.verdict import (
    METRIC_TITLES,
    Line,
    beats,
    judge,
    labels,
    percent,
    signed,
    stopped_early,
    trains_all,
)
from ssl_tasks.transfer import strategy

BASELINES = {
    "": "the same network untrained",
    "scratch_": "training from scratch",
    "raw_": "raw input without an encoder",
    "majority_": "always the most frequent class",
}
"""By the prefix of their comparison in the summary."""


def advice(measured: Mapping[str, Any], margin: float) -> list[str]:
    """A sentence for each label budget, and what limits them: rows that were capped, fits that failed.

    Args:
        measured: by the transfer stage.
        margin: a gain below this does not matter.
    """
    fitted = measured.get("scratch", {}).get("train_accuracy", {})
    budgets: dict[tuple[int, int], list[Line]] = defaultdict(list)
    for line in measured["summary"]:
        budgets[line["num_labels"], line.get("labels_per_class", 0)].append(line)
    sentences = [
        _sentence(lines, margin, fitted) for _, lines in sorted(budgets.items()) if all("val" in line for line in lines)
    ]
    if budgets and not sentences:
        sentences = ["No val row has a label, so nothing but the test rows says which strategy to use."]
    for name, rows in measured.get("capped", {}).items():
        sentences.append(f"{_title(name)} trained on {rows:,} rows at most (transfer.slow_rows).")
    failures = measured.get("warnings", [])
    return [*sentences, *(f"{text[:1].upper()}{text[1:]}." for text in failures)]


def _sentence(lines: Sequence[Line], margin: float, fitted: Mapping[str, float]) -> str:
    best = max(lines, key=lambda line: line["val"])  # of equal ones the first that the recipe lists
    metric = METRIC_TITLES[best["metric"]]
    why = "best on val" if len(lines) > 1 else "the only strategy"
    reached = f"{percent(best['pretrained'])} {metric} on test"
    text = f"With {labels(best)}, use {strategy(best['strategy']).title} ({why}, {reached})"
    early = stopped_early(best, fitted)
    said: dict[str, list[str]] = {"beaten": [], "worse": [], "open": []}
    for prefix, name in BASELINES.items():
        if f"{prefix}difference" not in best or (prefix == "" and trains_all(best["strategy"])):
            continue
        difference = f"{signed(best[f'{prefix}difference'])} points"
        if judge(best, prefix) == "worse":
            said["worse"].append(f"{name} ({difference})")
        elif prefix == "scratch_" and early:
            said["open"].append(f"{name} ({difference}; it had not converged)")
        elif beats(best, prefix, margin):
            said["beaten"].append(name)
        else:
            said["open"].append(f"{name} ({difference})")
    if said["worse"]:
        text = f"{text}. Pretraining did not help there: it was worse than {_listed(said['worse'])}"
        return f"{text}, and not shown to be better than {_listed(said['open'])}." if said["open"] else f"{text}."
    if said["open"]:
        return f"{text}. Pretraining did not show to help there against {_listed(said['open'])}."
    return f"{text}; it was better than {_listed(said['beaten'])}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _title(name: str) -> str:
    title = strategy(name).title
    return title[:1].upper() + title[1:]
