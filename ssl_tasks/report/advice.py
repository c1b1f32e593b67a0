"""Which strategy to use at which label budget, and what it is not better than.

The strategy is chosen by its value on val rows: choosing by the test rows would make their value look better than it
is. What did not beat a baseline is named, whatever the strategy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.report.units import change, is_share, reached, written
from ssl_tasks.report.verdict import JUDGEMENTS, Line, interval, judge, labels
from ssl_tasks.transfer import regression, strategy
from ssl_tasks.transfer.kinds import oriented

BASELINES = {
    "": "the same network untrained",
    "scratch_": "training from scratch",
    "raw_": "raw input without an encoder",
    "majority_": "always the most frequent class",
}
"""By the prefix of their comparison in the summary."""
OF_NUMBERS = "always the mean of the labelled rows"
NUMBERS = regression.METRICS


def advice(measured: Mapping[str, Any]) -> list[str]:
    """A sentence for each label budget, and what limits them: rows that were capped, fits that failed.

    Args:
        measured: by the transfer stage.
    """
    budgets: dict[tuple[int, int], list[Line]] = defaultdict(list)
    for line in measured["summary"]:
        budgets[line["num_labels"], line.get("labels_per_class", 0)].append(line)
    sentences = [_sentence(lines) for _, lines in sorted(budgets.items()) if all("val" in line for line in lines)]
    if budgets and not sentences:
        sentences = ["No val row has a label, so nothing but the test rows says which strategy to use."]
    sentences += [_against_counterpart(line) for line in measured["summary"] if "counterpart" in line]
    for name, rows in measured.get("capped", {}).items():
        sentences.append(f"{_title(name)} trained on {rows:,} rows at most (transfer.slow_rows).")
    failures = measured.get("warnings", [])
    return [*sentences, *(f"{text[:1].upper()}{text[1:]}." for text in failures)]


def _sentence(lines: Sequence[Line]) -> str:
    # of equal ones the first that the recipe lists
    best = max(lines, key=lambda line: oriented(line["metric"], line["val"]))
    chosen = f"use {strategy(best['strategy']).title}"
    why = "best on val" if len(lines) > 1 else "the only strategy"
    names = BASELINES | ({"majority_": OF_NUMBERS} if best["metric"] in NUMBERS else {})
    there = {prefix: name for prefix, name in names.items() if f"{prefix}difference" in best}
    open_ = [
        f"{name} ({_difference(best, prefix)})" for prefix, name in there.items() if judge(best, prefix) != "better"
    ]
    beaten = [name for prefix, name in there.items() if judge(best, prefix) == "better"]
    text = f"With {labels(best)}, {chosen} ({why}, {reached(best['metric'], best['pretrained'])} on test)"
    if open_:
        return f"{text}. Pretraining did not show to help there against {_listed(open_)}."
    return f"{text}; it was better than {_listed(beaten)}."


def _difference(line: Line, prefix: str) -> str:
    text = change(line["metric"], line[f"{prefix}difference"])
    return f"{text} points" if is_share(line["metric"]) else text


def _against_counterpart(line: Line) -> str:
    """Whether what the strategy adds to a simpler one is worth it."""
    value, theirs = (written(line["metric"], line[name]) for name in ("pretrained", "counterpart_value"))
    return (
        f"With {labels(line)}, {strategy(line['strategy']).title} reached {value} on test and "
        f"{strategy(line['counterpart']).title} {theirs}: {interval(line, 'counterpart_')}, "
        f"{JUDGEMENTS[judge(line, 'counterpart_')]}."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _title(name: str) -> str:
    title = strategy(name).title
    return title[:1].upper() + title[1:]
