"""Line charts as inline SVG: coloured by the page's CSS variables, so one figure serves light, dark and print.

Written by hand because matplotlib draws its colours and text in: such a figure cannot follow the reader's
colour scheme, and importing it costs a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 54, 18, 12, 56
MAX_POINTS = 300
DOT, MARK = 2.2, 3.8
"""Radii of the dots of single runs and of the markers on a line."""


Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart, with dots around it where single runs are to be seen."""

    name: str
    css: str
    """Class that gives it its colour and dash."""
    points: Sequence[Point]
    dots: Sequence[Point] = field(default=())
    marked: bool = False
    """Whether each point of the line carries a marker."""
    radii: Sequence[float] = field(default=())
    """Of the markers, one for each point, where they are not all alike."""


@dataclass(frozen=True)
class Axis:
    """One direction of a chart."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between low (0) and high (1)."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def linear_axis(label: str, values: Sequence[float], *, percent: bool = False, count: int = 5) -> Axis:
    """An axis around `values` with round ticks; a single value gets some room."""
    low, high = min(values), max(values)
    if percent:
        low, high = max(0.0, low - 0.02), min(1.0, high + 0.02)
    if high - low < 1e-12:
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    step = _round_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [(number * step, _tick(number * step, step, percent)) for number in range(first, last + 1)]
    return Axis(label, first * step, last * step, ticks)


def budget_axis(label: str, budgets: Sequence[tuple[int, str]]) -> Axis:
    """A logarithmic axis with a tick at each (number of labels, text); a line break puts the rest below."""
    low, high = budgets[0][0] / 1.3, budgets[-1][0] * 1.3
    return Axis(label, low, high, [(float(number), text) for number, text in budgets], log=True)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * nice for nice in (1, 2, 2.5, 5, 10) if raw <= power * nice * (1 + 1e-9))


def _tick(value: float, step: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.{0 if step >= 0.01 else 1}f}%"
    if abs(value) >= 1e5 or step < 1e-4:
        return f"{value:.1e}" if abs(value) > step / 2 else "0"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value + 0.0:,.{digits + (step * 10**digits % 1 > 1e-6)}f}"


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points: means of equal stretches, so that no spike vanishes without a trace."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> Markup:
    """An SVG element; `title` is read out by screen readers. All text is escaped."""
    parts = [frame(x, y)]
    for line in series:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (_at(point, x, y) for point in line.points))
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.css, path))
        marks = line.points if line.marked or line.radii else ()
        circles = [("dot", point, DOT) for point in line.dots]
        circles += [("mark", *mark) for mark in zip(marks, line.radii or [MARK] * len(marks), strict=True)]
        for kind, point, radius in circles:
            px, py = _at(point, x, y)
            parts.append(
                Markup('<circle class="{} {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(
                    kind, line.css, px, py, radius
                )
            )
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _at(point: Point, x: Axis, y: Axis) -> Point:
    """Pixels."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return LEFT + x.share(point[0]) * width, TOP + (1 - y.share(point[1])) * height


def frame(x: Axis, y: Axis) -> Markup:
    """Grid, ticks and names of the axes."""
    parts = []
    for value, text in y.ticks:
        py = _at((x.low, value), x, y)[1]
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, py, py)
        )
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 7, py + 4, text))
    floor = HEIGHT - BOTTOM
    for value, text in x.ticks:
        px = _at((value, y.low), x, y)[0]
        parts.append(
            Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(px, px, floor, floor + 4)
        )
        for number, part in enumerate(text.split("\n")):
            below = floor + 17 + 14 * number
            parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(px, below, part))
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, floor, floor)
    )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    below = floor + 24 + 14 * max((len(text.split("\n")) for _, text in x.ticks), default=1)
    parts.append(
        Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(middle, below, x.label)
    )
    return Markup("").join(parts)
