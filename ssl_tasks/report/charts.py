"""Which charts the report shows: accuracy over labels, losses, health."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
from markupsafe import Markup

from ssl_tasks.report.figures import Point, Series, budget_axis, line_chart, linear_axis, thin
from ssl_tasks.report.units import METRIC_TITLES, is_share
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.tables import FROM_SCRATCH, RANDOM_INIT

CURVES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    "feature_std": "Feature deviation (1 healthy, 0 collapsed)",
    "rankme": "RankMe: effective rank of the features",
    "knn": "kNN probe on val rows",
}
SHARES = ("knn",)
SIDES, SIDE_CSS = ("old", "new"), ("random", "pretrained")
"""Two runs in one chart, and which lines of the style sheet they are."""


@dataclass(frozen=True)
class Figure:
    """A chart with its caption."""

    caption: str
    svg: Markup


def efficiency(metrics: pa.Table, strategies: Sequence[str], method: str, metric: str) -> list[Figure]:
    """A chart for each strategy: the metric over the number of labels, a dot for each seed, a line for the mean."""
    cells: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    names: dict[int, str] = {}
    for row in metrics.to_pylist():
        if row["metric"] == metric:
            cells[row["strategy"], row["method"]][row["num_labels"]].append(row["value"])
            per_class = row["labels_per_class"]
            names[row["num_labels"]] = f"{per_class:,}/class" if per_class else f"{100 * row['label_fraction']:g}%"
    values = [value for cell in cells.values() for of_budget in cell.values() for value in of_budget]
    if not values:
        return []
    budgets = [(number, f"{number:,}\n{names[number]}") for number in sorted(names)]
    x = budget_axis("Labelled train rows", budgets)
    y = linear_axis(METRIC_TITLES[metric], values, percent=is_share(metric))
    figures = []
    for name in strategies:
        lines = [
            _mean_line("from scratch", "scratch", cells[FROM_SCRATCH, FROM_SCRATCH]),
            _mean_line("untrained network", "random", cells[name, RANDOM_INIT]),
            _mean_line(method, "pretrained", cells[name, method]),
        ]
        lines = [line for line in lines if line.points]
        caption = f"{strategy(name).title.removeprefix('a ')}: {METRIC_TITLES[metric]} on test rows"
        figures.append(Figure(caption, line_chart(caption, lines, x, y)))
    return figures


def _mean_line(name: str, css: str, cell: dict[int, list[float]]) -> Series:
    points = [(float(number), sum(values) / len(values)) for number, values in sorted(cell.items())]
    dots = [(float(number), value) for number, values in sorted(cell.items()) for value in values]
    return Series(name, css, points, dots, marked=True)


def is_loss(name: str) -> bool:
    """Whether a column of the training's log is a loss."""
    return name.endswith("loss")


def curves(table: pa.Table, wanted: Callable[[str], bool] = lambda _: True) -> list[Figure]:
    """A chart over steps for each `wanted` column that has two values at least, losses first."""
    if "step" not in table.column_names:
        return []
    figures = []
    for name in sorted(table.column_names, key=lambda name: not is_loss(name)):
        points = _points(table, name)
        if name != "step" and wanted(name) and len(points) > 1:
            figures.append(_curve(name, [Series(name, "pretrained", thin(points))], "Step"))
    return figures


def overlaid(old: pa.Table, new: pa.Table, rows: tuple[int, int], skip: Collection[str] = ()) -> list[Figure]:
    """A chart for each column that has two values at least in both runs, the old one dashed.

    Args:
        rows: of a step, in each run; where they differ, the charts are over rows and not over steps.
        skip: columns that have no common scale.
    """
    if not {"step"} <= {*old.column_names} & {*new.column_names}:
        return []
    per_step = (1, 1) if rows[0] == rows[1] else rows
    figures = []
    for name in sorted(new.column_names, key=lambda name: not is_loss(name)):
        if name in ("step", *skip) or name not in old.column_names:
            continue
        points = [
            [(step * of, value) for step, value in _points(table, name)]
            for table, of in zip((old, new), per_step, strict=True)
        ]
        if min(map(len, points)) > 1:
            series = [Series(run, css, thin(line)) for run, css, line in zip(SIDES, SIDE_CSS, points, strict=True)]
            figures.append(_curve(name, series, "Step" if rows[0] == rows[1] else "Rows seen"))
    return figures


def _points(table: pa.Table, name: str) -> list[Point]:
    pairs = zip(table["step"].to_pylist(), table[name].to_pylist(), strict=True)
    return [(float(step), float(value)) for step, value in pairs if value is not None]


def _curve(name: str, series: Sequence[Series], along: str) -> Figure:
    caption = CURVES.get(name, name.replace("_", " "))
    x = linear_axis(along, [0.0, *(line.points[-1][0] for line in series)])
    y = linear_axis(caption, [value for line in series for _, value in line.points], percent=name in SHARES)
    return Figure(caption, line_chart(caption, series, x, y))
