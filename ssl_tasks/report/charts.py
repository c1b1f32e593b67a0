"""Which charts the report shows: accuracy over labels, losses, health."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from markupsafe import Markup

from ssl_tasks.report.figures import Point, Series, budget_axis, line_chart, linear_axis, thin
from ssl_tasks.report.verdict import METRIC_TITLES
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
    y = linear_axis(METRIC_TITLES[metric], values, percent=True)
    figures = []
    for name in strategies:
        lines = [
            _mean_line("from scratch", "scratch", cells[FROM_SCRATCH, FROM_SCRATCH]),
            _mean_line("untrained network", "random", cells[name, RANDOM_INIT]),
            _mean_line(method, "pretrained", cells[name, method]),
        ]
        caption = f"{strategy(name).title.removeprefix('a ')}: {METRIC_TITLES[metric]} on test rows"
        figures.append(Figure(caption, line_chart(caption, lines, x, y)))
    return figures


def _mean_line(name: str, css: str, cell: dict[int, list[float]]) -> Series:
    points = [(float(number), sum(values) / len(values)) for number, values in sorted(cell.items())]
    dots = [(float(number), value) for number, values in sorted(cell.items()) for value in values]
    return Series(name, css, points, dots, marked=True)


def curves(table: pa.Table) -> list[Figure]:
    """A chart over steps for each column that has two values at least, losses first."""
    if "step" not in table.column_names:
        return []
    steps = table["step"].to_pylist()
    figures = []
    for name in sorted(table.column_names, key=lambda name: not name.endswith("loss")):
        points: list[Point] = [
            (float(step), float(value))
            for step, value in zip(steps, table[name].to_pylist(), strict=True)
            if value is not None
        ]
        if name == "step" or len(points) < 2:
            continue
        caption = CURVES.get(name, name.replace("_", " "))
        kept = thin(points)
        x = linear_axis("Step", [0.0, points[-1][0]])
        y = linear_axis(caption, [value for _, value in kept], percent=name in SHARES)
        figures.append(Figure(caption, line_chart(caption, [Series(name, "pretrained", kept)], x, y)))
    return figures
