"""What is taken for what: the confusion matrix as inline SVG, and its largest errors in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ssl_tasks.report.predictions import Fits, Int
from ssl_tasks.report.units import percent

MAX_CLASSES = 30
"""Beyond that a matrix can no longer be read, and the pairs are listed."""
PAIRS, FEW_PAIRS = 15, 3
SIDE_BY_SIDE = 10
"""Matrices of more classes stand below each other."""
MAX_LETTERS = 14
LETTER, LINE = 6.4, 15
"""Pixels of a letter's mean width and of a line."""
DEEPEST = 0.55
"""Opacity of a full cell: deeper, and the text on it would need another colour than that beside it."""


def counts(fits: Fits) -> Int:
    """(C, C) predictions by true class (first) and predicted class, all seeds together."""
    number = len(fits.classes)
    flat = np.bincount(fits.truth * number + fits.predicted, minlength=number * number)
    return flat.reshape(number, number).astype(np.int64)


def section(budgets: Sequence[Fits]) -> dict[str, Any]:
    """Matrices and pairs of each budget, for the template."""
    number = len(budgets[0].classes) if budgets else 0
    readable = number <= MAX_CLASSES
    return {
        "wide": number > SIDE_BY_SIDE,
        "budgets": [
            {
                "caption": f"With {fits.budget}",
                "svg": matrix(fits) if readable else "",
                "pairs": confused(fits, FEW_PAIRS if readable else PAIRS),
                "readable": readable,
            }
            for fits in budgets
        ],
    }


def confused(fits: Fits, most: int) -> list[dict[str, str]]:
    """The errors that are made most often, first the most frequent; `rows` is the mean over seeds."""
    found = counts(fits)
    totals = found.sum(axis=1)
    errors = found - np.diag(np.diag(found))
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    return [
        {
            "is": fits.classes[truth],
            "called": fits.classes[called],
            "rows": f"{errors[truth, called] / fits.num_seeds:,.1f}",
            "share": percent(errors[truth, called] / totals[truth]),
        }
        for truth, called in (divmod(int(place), len(found)) for place in order)
        if errors[truth, called]
    ]


def matrix(fits: Fits) -> Markup:
    """An SVG element: a line for each true class, each cell the share of that class's predictions."""
    found = counts(fits)
    names = [_short(name) for name in fits.classes]
    longest = max(map(len, names))
    turned = longest > 3
    cell = 30 if len(names) <= SIDE_BY_SIDE else 24
    room = longest * LETTER + 8
    left, top = LINE + 6 + room, LINE + (room if turned else LINE + 4)
    parts = [_axes(left, top, cell * len(names))]
    for place, (name, full) in enumerate(zip(names, fits.classes, strict=True)):
        middle = (place + 0.5) * cell
        parts.append(_text(left - 6, top + middle + 4, "end", name, full))
        at = f"rotate(-90 {left + middle + 4:.1f} {top - 5:.1f})" if turned else ""
        parts.append(_text(left + middle + 4 * turned, top - 5, "start" if turned else "middle", name, full, at))
    for truth, line in enumerate(found):
        for called, count in enumerate(line):
            corner = (left + called * cell, top + truth * cell)
            parts.append(_cell(corner, cell, count, line.sum(), fits.classes[truth], fits.classes[called]))
    width, height = left + cell * len(names) + 2, top + cell * len(names) + 2
    return Markup(
        '<svg class="matrix" style="--natural: {:.0f}px" viewBox="0 0 {:.0f} {:.0f}" role="img" '
        'aria-label="Confusion matrix with {}">{}</svg>'
    ).format(width, width, height, fits.budget, Markup("").join(parts))


def _axes(left: float, top: float, side: float) -> Markup:
    middle = top + side / 2
    return Markup(
        '<text class="label" x="{:.1f}" y="11" text-anchor="middle">was called</text>'
        '<text class="label" x="11" y="{:.1f}" text-anchor="middle" transform="rotate(-90 11 {:.1f})">is</text>'
    ).format(left + side / 2, middle, middle)


def _text(x: float, y: float, anchor: str, text: str, full: str, transform: str = "") -> Markup:
    turn = Markup(' transform="{}"').format(transform) if transform else ""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}<title>{}</title></text>').format(
        x, y, anchor, turn, text, full
    )


def _cell(corner: tuple[float, float], side: int, count: int, total: int, truth: str, called: str) -> Markup:
    """A square with its share in percent; a share that rounds to 0 is left out, and told on hovering."""
    share = count / max(1, total)
    css = "hit" if truth == called else "miss"
    depth = DEEPEST * float(np.sqrt(share))  # the root: an error of 4% is to be seen beside one of 60%
    x, y = corner
    text = f"{100 * share:.0f}" if 100 * share >= 0.5 else ""
    told = f"{truth} called {called}: {count:,} of {total:,} ({percent(share)})"
    number = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
        x + side / 2, y + side / 2 + 4, text
    )
    return Markup(
        '<g class="{}"><rect x="{:.1f}" y="{:.1f}" width="{}" height="{}" fill-opacity="{:.3f}"/>{}'
        "<title>{}</title></g>"
    ).format(css, x + 0.5, y + 0.5, side - 1, side - 1, depth, number if text else "", told)


def _short(name: str) -> str:
    """Cut in the middle: long names often differ in their last letters only."""
    return name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 6]}…{name[-5:]}"
