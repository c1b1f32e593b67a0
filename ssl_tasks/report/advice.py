"""Which strategy to use at which label budget, and what it is not better than.

The strategy is chosen by its value on val rows: choosing by the test rows would make their value look better than it
is. What did not beat a baseline is named, whatever the strategy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.report.judging import (
    FEW_SEEDS,
    JUDGEMENTS,
    Line,
    beats,
    few_seeds,
    judge,
    stopped_early,
    trains_all,
    unfinished,
)
from ssl_tasks.report.phrases import interval, labels
from ssl_tasks.report.sections import fitted_by, majority_says
from ssl_tasks.report.units import change, is_share, reached, written
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.kinds import oriented
from ssl_tasks.transfer.targets import CLASSIFICATION

BASELINES = {
    "": "the same network untrained",
    "scratch_": "training from scratch",
    "raw_": "raw input without an encoder",
}
"""By the prefix of their comparison in the summary; `majority_` is beside them."""


def advice(measured: Mapping[str, Any], margin: float) -> list[str]:
    """A sentence for each label budget, and what limits them: rows that were capped, fits that failed.

    Args:
        measured: by the transfer stage.
        margin: a gain below this does not matter.
    """
    budgets: dict[tuple[int, int, float], list[Line]] = defaultdict(list)
    for line in measured["summary"]:
        # several shares may be as many labels
        budgets[line["num_labels"], line.get("labels_per_class", 0), line["label_fraction"]].append(line)
    task = measured.get("task", CLASSIFICATION)
    chosen = [lines for _, lines in sorted(budgets.items()) if all("val" in line for line in lines)]
    fitted = fitted_by(measured.get("scratch", {}))
    sentences = [_sentence(lines, task, margin, fitted) for lines in chosen]
    if budgets and not sentences:
        sentences = ["No val row has a label, so nothing but the test rows says which strategy to use."]
    sentences += [_against_counterpart(line) for line in measured["summary"] if "counterpart" in line]
    for name, rows in measured.get("capped", {}).items():
        sentences.append(f"{_title(name)} trained on {rows:,} rows at most (transfer.slow_rows).")
    if seeds := [line["num_seeds"] for line in measured["summary"] if few_seeds(line)]:
        sentences.append(
            f"Nothing is called better or worse by fewer than {FEW_SEEDS} seeds, and there are {min(seeds)} "
            "(transfer.seeds)."
        )
    failures = measured.get("warnings", [])
    return [*sentences, *(f"{text[:1].upper()}{text[1:]}." for text in failures)]


def _sentence(lines: Sequence[Line], task: str, margin: float, fitted: Mapping[str, float]) -> str:
    # of equal ones the first that the recipe lists
    best = max(lines, key=lambda line: oriented(line["metric"], line["val"]))
    why = "best on val" if len(lines) > 1 else "the only strategy"
    text = (
        f"With {labels(best)}, use {strategy(best['strategy']).title} ({why}, "
        f"{reached(best['metric'], best['pretrained'])} on test)"
    )
    beaten, worse, open_ = _against_baselines(best, task, margin, stopped_early(best, fitted))
    if worse:
        text = f"{text}. Pretraining did not help there: it was worse than {_listed(worse)}"
        return f"{text}, and not shown to be better than {_listed(open_)}." if open_ else f"{text}."
    if open_:
        return f"{text}. Pretraining did not show to help there against {_listed(open_)}."
    return f"{text}; it was better than {_listed(beaten)}."


def _against_baselines(line: Line, task: str, margin: float, early: bool) -> tuple[list[str], list[str], list[str]]:
    """Baselines that were beaten by enough to matter, those that were better, and the others."""
    names = BASELINES | {"majority_": f"always {majority_says(task)}"}
    beaten: list[str] = []
    worse: list[str] = []
    open_: list[str] = []
    for prefix, name in names.items():
        if f"{prefix}difference" not in line or (prefix == "" and trains_all(line["strategy"])):
            continue
        said = _difference(line, prefix)
        if judge(line, prefix) == "worse":
            worse.append(f"{name} ({said})")
        elif prefix == "scratch_" and early:
            open_.append(f"{name} ({said}; it {unfinished(line['metric'])})")
        elif beats(line, prefix, margin):
            beaten.append(name)
        else:
            open_.append(f"{name} ({said})")
    return beaten, worse, open_


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
