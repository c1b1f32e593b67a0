"""Label budgets, differences and intervals in words."""

from __future__ import annotations

from ssl_tasks.report.judging import Line
from ssl_tasks.report.units import MINUS, is_share, spread

SIGNS = f"+{MINUS}"


def labels(line: Line) -> str:
    """`1% of the labels (13)`, `5 labels a class (50)`."""
    if line.get("labels_per_class"):
        count = line["labels_per_class"]
        return f"{count:,} label{'' if count == 1 else 's'} a class ({line['num_labels']:,})"
    if line["label_fraction"] == 1.0:
        return f"all labels ({line['num_labels']:,})"
    return f"{line['label_fraction'] * 100:g}% of the labels ({line['num_labels']:,})"


def interval(line: Line, prefix: str) -> str:
    """`+2.1 points (95% interval +0.4 to +3.9)`, or in the unit of the numbers `−0.3 (95% interval ...)`."""
    metric = line.get("metric", "accuracy")
    difference, low, high = spread(metric, *(line[f"{prefix}{name}"] for name in ("difference", "low", "high")))
    unit = " points" if is_share(metric) else ""
    return f"{difference}{unit} (95% interval {low} to {high})"


def gain(line: Line, prefix: str) -> str:
    """`12.3 points more (95% interval +8.1 to +16.0)`."""
    metric, word = line.get("metric", "accuracy"), "less" if line[f"{prefix}difference"] < 0 else "more"
    difference, low, high = spread(metric, *(line[f"{prefix}{name}"] for name in ("difference", "low", "high")))
    unit = " points" if is_share(metric) else ""
    return f"{difference.lstrip(SIGNS)}{unit} {word} (95% interval {low} to {high})"
