"""How values of a metric are written: shares as percent and points, others in the unit of what is predicted."""

from __future__ import annotations

import math

from ssl_tasks.transfer.kinds import IN_UNITS

METRIC_TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "subset_accuracy": "subset accuracy",
    "hamming_loss": "Hamming loss",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "mean_average_precision": "mean average precision",
    "recall_at_1": "recall@1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "rmse": "RMSE",
    "mae": "mean absolute error",
    "r2": "R2",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "mean_box_iou": "mean IoU of boxes",
    "iou_over_half": "share of boxes with an IoU over 0.5",
}
NO_SHARES = IN_UNITS | {"r2", "log_loss"}
MINUS = "\N{MINUS SIGN}"


def is_share(metric: str) -> bool:
    """Whether its values are written in percent."""
    return metric not in NO_SHARES


def written(metric: str, value: float) -> str:
    """`83.1%`, or in the unit of the numbers `2.31`."""
    return percent(value) if is_share(metric) else amount(value)


def reached(metric: str, value: float) -> str:
    """`83.1% accuracy`, or `RMSE 2.31`."""
    title = METRIC_TITLES[metric]
    return f"{percent(value)} {title}" if is_share(metric) else f"{title} {amount(value)}"


def apart(metric: str, value: float) -> str:
    """A distance between two values: `12.3 points`, or `0.31`."""
    return points(value) if is_share(metric) else amount(value)


def change(metric: str, value: float) -> str:
    """A difference with its sign: `+12.3`, or `+0.31`."""
    return signed(value) if is_share(metric) else signed_amount(value)


def percent(value: float) -> str:
    """A share with one decimal."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A share as percentage points."""
    return f"{100 * value:.1f} points"


def signed(value: float) -> str:
    """Percentage points with sign, a true minus, and no minus zero."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def amount(value: float) -> str:
    """Three digits that count, and all those before the point."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    if digits > 6:
        return f"{value:.2e}".replace("-", MINUS, 1) if value < 0 else f"{value:.2e}"
    return f"{value:,.{max(0, digits)}f}".replace("-", MINUS)


def signed_amount(value: float) -> str:
    """The same with its sign."""
    return f"+{amount(value)}" if value > 0 else amount(value)
