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
MOST_PLACES = 6
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


def spread(metric: str, difference: float, low: float, high: float) -> tuple[str, str, str]:
    """A difference and the ends of its interval, signed, with as many decimals each: `-1.79`, `-2.10`, `+0.01`."""
    if is_share(metric):
        return signed(difference), signed(low), signed(high)
    places = _places(max(abs(difference), abs(low), abs(high)))
    first, second, third = (signed_amount(value, places) for value in (difference, low, high))
    return first, second, third


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


def amount(value: float, places: int | None = None) -> str:
    """Three digits that count, and all those before the point.

    Args:
        places: decimals, where they are not the value's own to say.
    """
    places = _places(abs(value)) if places is None else places
    if places > MOST_PLACES:
        return f"{value:.2e}".replace("-", MINUS, 1) if value < 0 else f"{value:.2e}"
    return f"{value:,.{places}f}".replace("-", MINUS)


def signed_amount(value: float, places: int | None = None) -> str:
    """The same with its sign, and no minus zero."""
    text = amount(value, places)
    if not text.strip(f"0.,{MINUS}"):
        return text.lstrip(MINUS)
    return f"+{text}" if value > 0 else text


def _places(size: float) -> int:
    """Decimals that leave three digits of a number of this size."""
    return max(0, 2 - math.floor(math.log10(size))) if size else 2
