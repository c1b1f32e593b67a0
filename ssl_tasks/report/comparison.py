"""The page of a comparison: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ssl_tasks.report import page
from ssl_tasks.report.judging import FEW_SEEDS, JUDGEMENTS, few_seeds, judge
from ssl_tasks.report.ranking import FEW_RUNS, Line, Score
from ssl_tasks.report.sections import size
from ssl_tasks.report.units import change, is_share, spread, written
from ssl_tasks.transfer import strategy


def render(lines: Sequence[Line], *, recipe: str, seeds: int) -> str:
    """The page as text; everything that a user named is escaped.

    Args:
        lines: as `ranking.rank` gives them.
        seeds: pretrainings of each candidate.
    """
    scored = [line for line in lines if line.scores]
    budgets = [(score.strategy, score.label_fraction) for score in scored[0].scores] if scored else []
    return page.render(
        "comparison.html.j2",
        title=f"{len(lines)} methods on {recipe}",
        sentence=headline(lines),
        seeds=seeds,
        few=seeds < FEW_RUNS,
        columns=[f"{_title(name)}, {100 * fraction:g}% of the labels" for name, fraction in budgets],
        rows=[_row(place, line) for place, line in enumerate(scored, start=1)],
        failed=[line for line in lines if line.errors],
    )


def headline(lines: Sequence[Line]) -> str:
    """Which came first, by how much, and how many of all beat their untrained backbone there."""
    scored = [line for line in lines if line.scores]
    if not scored:
        return "No candidate has a result."
    best = scored[0].scores[0]
    firsts = [asdict(line.scores[0]) for line in scored]
    beat = sum(judge(score, "") == "better" for score in firsts)
    where = f"{_title(best.strategy).lower()} with {100 * best.label_fraction:g}% of the labels ({best.num_labels:,})"
    value, unit = written(best.metric, best.pretrained), " points" if is_share(best.metric) else ""
    counted = f"{beat} of {len(scored)} beat theirs at this budget."
    if few := sum(few_seeds(score) for score in firsts):
        counted += f" Fewer than {FEW_SEEDS} draws of labels, as {few} of them have (transfer.seeds), tell nothing."
    return (
        f"First of {len(scored)}: {scored[0].candidate}, {value} by {where}, {_gain(best)}{unit} over its backbone "
        f"untrained. {counted}"
    )


def table(lines: Sequence[Line], *, intervals: bool) -> tuple[list[str], list[list[str]]]:
    """Column names and cells for a terminal, or with intervals, for a Markdown file."""
    scored = [line for line in lines if line.scores]
    budgets = scored[0].scores if scored else []
    names = ["method", "backbone"]
    names += [f"{score.strategy} {100 * score.label_fraction:g}%" for score in budgets]
    names += ["RankMe", "alignment", "uniformity", "rows/s", "memory"]
    cells = []
    for line in scored:
        shown = [_gain(score) if intervals else change(score.metric, score.difference) for score in line.scores]
        pairs = zip(line.scores, shown, strict=True)
        scores = [f"{written(score.metric, score.pretrained)} ({gain})" for score, gain in pairs]
        cells.append([line.candidate, line.backbone, *scores, *_measures(line)])
    return names, cells


def _row(place: int, line: Line) -> dict[str, Any]:
    return {
        "place": place,
        "name": line.candidate,
        "method": line.method,
        "backbone": line.backbone,
        "scores": [
            {
                "value": written(score.metric, score.pretrained),
                "gain": _gain(score),
                "judgement": JUDGEMENTS[judge(asdict(score), "")],
            }
            for score in line.scores
        ],
        "measures": [*_measures(line), "-" if line.seconds is None else f"{line.seconds:,.0f} s"],
        "runs": line.num_runs,
    }


def _measures(line: Line) -> list[str]:
    """RankMe, alignment, uniformity, rows/s and memory; a dash for what a run did not measure."""
    formats: dict[str, Callable[[float], str]] = {
        "rankme": "{:.1f}".format,
        "alignment": "{:.2f}".format,
        "uniformity": "{:.2f}".format,
        "rows_per_second": "{:,.0f}".format,
        "peak_memory_bytes": lambda value: size(int(value)),
    }
    found = line.measures
    return ["-" if (value := found[key]) is None else write(value) for key, write in formats.items()]


def _gain(score: Score) -> str:
    difference, low, high = spread(score.metric, score.difference, score.low, score.high)
    return f"{difference} [{low}, {high}]"


def _title(name: str) -> str:
    title = strategy(name).title.removeprefix("a ")
    return title[:1].upper() + title[1:]
