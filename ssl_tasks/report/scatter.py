"""A scatter plot as inline SVG whose dots show pictures when they are pointed at, by CSS alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ssl_tasks.report.confusion import LETTER, LINE

SIDE, LEFT, TOP, BELOW = 330, 22, 4, 22
MARGIN = 8
COLUMN, PICTURE = 90, 80
"""Width that is kept free beside the plot for the picture, and its side."""
SMALL, LARGE = 2.3, 3.2
"""Radii of dots without and with a picture."""


@dataclass(frozen=True)
class Dot:
    """One row of the data."""

    x: float
    y: float
    css: str
    text: str
    """What it is, in a word."""
    split: str


def scatter(
    title: str,
    dots: Sequence[Dot],
    axes: tuple[str, str],
    *,
    images: Sequence[str],
    names: Sequence[tuple[str, str]],
    define: bool,
) -> Markup:
    """An SVG element. Both directions have one scale, so that distances can be compared.

    Args:
        dots: those of the first `len(images)` show these when they are pointed at.
        axes: what is written along x and y.
        images: data URIs.
        names: what each dot's colour stands for, with its class in the style sheet, to be written where its dots
            are; empty for no names.
        define: whether this element holds the images; others on the page refer to them.
    """
    places = _places(dots)
    parts = [_frame(*axes)]
    if define and images:
        parts.append(_definitions(images))
    order = [*range(len(images), len(dots)), *range(len(images))]  # those with pictures lie on top
    parts += [_dot(dots[number], places[number], number if number < len(images) else None) for number in order]
    parts += _names(names, places)
    width = LEFT + SIDE + (COLUMN if images else 2)
    return Markup('<svg class="map" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, TOP + SIDE + BELOW, f"Map of the embeddings: {title}", Markup("").join(parts)
    )


def _places(dots: Sequence[Dot]) -> np.ndarray:
    """(N, 2) pixels, the middle of the occupied range in the middle of the plot."""
    values = np.array([(dot.x, -dot.y) for dot in dots]).reshape(-1, 2)
    low, high = values.min(axis=0), values.max(axis=0)
    scale = (SIDE - 2 * MARGIN) / (float((high - low).max()) or 1.0)
    middle: np.ndarray = (values - (low + high) / 2) * scale + np.array([LEFT + SIDE / 2, TOP + SIDE / 2])
    return middle


def _frame(x: str, y: str) -> Markup:
    middle = TOP + SIDE / 2
    return Markup(
        '<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>'
        '<text x="{}" y="{}" text-anchor="middle">{}</text>'
        '<text x="14" y="{}" text-anchor="middle" transform="rotate(-90 14 {})">{}</text>'
    ).format(LEFT, TOP, SIDE, SIDE, LEFT + SIDE / 2, TOP + SIDE + 16, x, middle, middle, y)


def _definitions(images: Sequence[str]) -> Markup:
    one = Markup('<image id="picture-{}" x="{}" y="{}" width="{}" height="{}" href="{}"/>')
    left = LEFT + SIDE + COLUMN - PICTURE
    return Markup("<defs>{}</defs>").format(
        Markup("").join(one.format(number, left, TOP, PICTURE, PICTURE, uri) for number, uri in enumerate(images))
    )


def _dot(dot: Dot, place: np.ndarray, picture: int | None) -> Markup:
    """A circle, or a square for every second colour, so that colour is not all that tells them apart."""
    radius = SMALL if picture is None else LARGE
    x, y = place
    css = Markup("") if picture is not None else Markup(' class="{}"').format(dot.css)
    if dot.css[1:].isdigit() and int(dot.css[1:]) % 2:
        side = 1.8 * radius
        shape = Markup('<rect{} x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            css, x - side / 2, y - side / 2, side, side
        )
    else:
        shape = Markup('<circle{} cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(css, x, y, radius)
    if picture is None:
        return shape
    left = LEFT + SIDE + COLUMN - PICTURE
    return Markup(
        '<g class="pic {}" tabindex="-1">{}<use href="#picture-{}"/><text x="{}" y="{}">{}</text>'
        '<text x="{}" y="{}">{}</text></g>'
    ).format(dot.css, shape, picture, left, TOP + PICTURE + LINE, dot.text[:12],
             left, TOP + PICTURE + 2 * LINE, dot.split)  # fmt: skip


def _names(names: Sequence[tuple[str, str]], places: np.ndarray) -> list[Markup]:
    """Each name at the median of its dots, where it covers no other name."""
    written: list[tuple[float, float, float]] = []
    parts = []
    for name, css in sorted(set(names)):
        here = np.array([other == name for other, _ in names])
        x, y = np.median(places[here], axis=0)
        half = len(name) * LETTER / 2
        if css == "c-none" or any(abs(x - ox) < half + oh and abs(y - oy) < LINE for ox, oy, oh in written):
            continue
        written.append((x, y, half))
        parts.append(
            Markup('<text class="name" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(x, y + 4, name)
        )
    return parts
