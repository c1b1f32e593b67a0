"""The trials of a search: a row for each, best first, as a table and as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ssl_tasks.report import page

MEASURES = {"knn": "kNN on val", "rankme": "RankMe"}
"""What a search may go by, more is better: a vote of neighbours among val rows, or what needs no labels."""

State = Literal["finished", "stopped", "out of budget", "failed", "not begun"]


@dataclass(frozen=True)
class Row:
    """One trial."""

    trial: str
    method: str
    parameters: dict[str, Any]
    """What was drawn, by the keys' paths."""
    rung: int
    """The last that it came to, from 0; -1 for none."""
    steps: int
    """Optimizer steps there."""
    total_steps: int
    """Of the whole budget of one trial, which its learning rates are laid out for."""
    value: float | None
    """Of the metric at that rung."""
    state: State
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Who came furthest first, at the same rung the better value; failed trials last."""
    return sorted(rows, key=lambda row: (row.state == "failed", -row.rung, -(row.value or 0.0)))


def winner(rows: Sequence[Row]) -> Row | None:
    """The best of those that came furthest, or None where no trial came to a rung."""
    first = ranked(rows)[0] if rows else None
    return first if first and first.state != "failed" and first.value is not None else None


def headline(rows: Sequence[Row], metric: str) -> str:
    """Which was chosen, by what, and what all took."""
    best = winner(rows)
    if best is None:
        return "No trial has a result."
    given = sum(row.steps for row in rows)
    whole = sum(row.total_steps for row in rows)
    return (
        f"Best of {len(rows)}: {best.trial} ({written(best.parameters) or 'nothing drawn'}), {MEASURES[metric]} "
        f"{number(best.value, metric)} after {best.steps:,} of {best.total_steps:,} steps. The search took {given:,} "
        f"steps where all trials in full take {whole:,}."
    )


def table(rows: Sequence[Row], metric: str) -> tuple[list[str], list[list[str]]]:
    """Column names and cells."""
    names = ["trial", "method", "parameters", "steps", MEASURES[metric], "state"]
    cells = [
        [
            row.trial, row.method, written(row.parameters), f"{row.steps:,}/{row.total_steps:,}",
            number(row.value, metric), f"{row.state}: {row.error}" if row.error else row.state,
        ]
        for row in ranked(rows)
    ]  # fmt: skip
    return names, cells


def render(rows: Sequence[Row], *, recipe: str, metric: str, rungs: int, reduction: int) -> str:
    """The page as text; everything that a user named is escaped."""
    names, cells = table(rows, metric)
    best = winner(rows)
    return page.render(
        "search.html.j2",
        title=f"{len(rows)} trials on {recipe}",
        sentence=headline(rows, metric),
        names=names,
        rows=cells,
        best=best.trial if best else None,
        rungs=rungs,
        reduction=reduction,
        label_free=metric == "rankme",
    )


def written(parameters: dict[str, Any]) -> str:
    """`lr=0.003 temperature=0.2`: keys without their sections."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in parameters.items())


def number(value: float | None, metric: str) -> str:
    """The metric as it is shown; a dash for none."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}%" if metric == "knn" else f"{value:.1f}"
