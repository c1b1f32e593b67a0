"""Horizontal bars and histograms as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ssl_tasks.report.embedded import Float
from ssl_tasks.report.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, frame, linear_axis
from ssl_tasks.report.predictions import Int

ROW, NAMES, VALUES, BAR = 23, 118, 84, 14
"""Pixels: height of a row, width of the names and of the values, height of a bar."""
MAX_LETTERS = 17
BINS = 24
WIDE_RANGE = 30.0
"""Values whose largest is so many times the smallest stand on a logarithmic axis."""


@dataclass(frozen=True)
class Bar:
    """One row: a name, parts that lie end to end, and what is written behind them."""

    name: str
    parts: Sequence[tuple[float, str]]
    """(value, class of the style sheet)."""
    text: str
    told: str = ""
    """On hovering."""


def bars(title: str, rows: Sequence[Bar]) -> Markup:
    """An SVG element; all bars are on one scale from 0."""
    longest = max((sum(value for value, _ in row.parts) for row in rows), default=0.0) or 1.0
    scale = (WIDTH - NAMES - VALUES) / longest
    drawn = [_row(number, row, scale) for number, row in enumerate(rows)]
    return Markup('<svg class="bars" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, ROW * len(rows) + 2, title, Markup("").join(drawn)
    )


def _row(number: int, row: Bar, scale: float) -> Markup:
    top = number * ROW
    left, parts = float(NAMES), []
    for value, css in row.parts:
        parts.append(
            Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                css, left, top + 4, value * scale, BAR
            )
        )
        left += value * scale
    short = row.name if len(row.name) <= MAX_LETTERS else f"{row.name[: MAX_LETTERS - 1]}…"
    return Markup(
        '<g><title>{}</title><text x="{}" y="{}" text-anchor="end">{}</text>{}<text x="{:.1f}" y="{}">{}</text></g>'
    ).format(row.told or f"{row.name}: {row.text}", NAMES - 7, top + 15, short, Markup("").join(parts),
             left + 5, top + 15, row.text)  # fmt: skip


def histogram(title: str, label: str, values: Float, unit: float = 1.0) -> Markup:
    """An SVG element: how many of `values` (N,), all above 0, lie in each of some ranges.

    Args:
        unit: what the axis counts in; 1000 for kilobytes where values are bytes.
    """
    edges, counts = binned(values / unit)
    log = _is_wide(float(edges[0]), float(edges[-1]))
    ticks = linear_axis("", [edges[0], edges[-1]]).ticks
    shown = _log_ticks(edges[0], edges[-1]) if log else [tick for tick in ticks if edges[0] <= tick[0] <= edges[-1]]
    x = Axis(label, float(edges[0]), float(edges[-1]), shown, log=log)
    y = linear_axis("", [0.0, float(counts.max())])
    floor = HEIGHT - BOTTOM
    width, height = WIDTH - LEFT - RIGHT, floor - TOP
    parts = [frame(x, y)]
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        begin, end = (LEFT + x.share(float(edge)) * width for edge in (low, high))
        tall = y.share(float(count)) * height
        parts.append(
            Markup(
                '<rect class="pretrained" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{:.4g} to {:.4g}: {:,}</title></rect>"
            ).format(begin + 0.5, floor - tall, max(end - begin - 1, 0.5), tall, low, high, count)
        )
    return Markup('<svg class="bars" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def binned(values: Float) -> tuple[Float, Int]:
    """Edges (B + 1,) and counts (B,); ranges of equal ratio where the values span much."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = 0.9 * low, 1.1 * high
    if _is_wide(low, high):
        edges = np.geomspace(low, high, BINS + 1)
        edges[0], edges[-1] = low, high  # geomspace may miss them by a bit, and they would not be counted
    else:
        edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(values, edges)
    return edges, counts.astype(np.int64)


def _is_wide(low: float, high: float) -> bool:
    return low > 0 and high / low > WIDE_RANGE


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [(value, f"{value:,.12g}") for value in values if low <= value <= high]
