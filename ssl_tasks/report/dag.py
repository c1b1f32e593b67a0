"""The stages as a picture: one box each, below those it is made from, coloured by whether it ran or was found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, BOX, HIGH, GAP = 420, 132, 34, 22
"""Pixels: of the picture, and of a box, its height and the space between two lines of boxes."""


@dataclass(frozen=True)
class Node:
    """One stage."""

    name: str
    parents: Sequence[str]
    text: str
    """Below the name: state and time."""
    css: str
    """Class of the style sheet."""
    told: str = ""
    """On hovering."""


def picture(nodes: Sequence[Node]) -> Markup:
    """An SVG element; a line that a longer way through other stages implies is left out."""
    names = {node.name for node in nodes}
    parents = {node.name: [one for one in node.parents if one in names] for node in nodes}
    lines: dict[int, list[Node]] = defaultdict(list)
    for node in nodes:
        lines[depth(node.name, parents)].append(node)
    places = _places(lines, parents)
    drawn = [_line(places[one], places[name]) for name in places for one in direct(name, parents)]
    drawn += [_box(node, places[node.name]) for node in nodes]
    height = len(lines) * (HIGH + GAP) - GAP + 2
    return Markup(
        '<svg class="dag" viewBox="0 -1 {} {}" role="img" aria-label="Stages and their inputs">{}</svg>'
    ).format(WIDTH, height, Markup("").join(drawn))


def _places(
    lines: Mapping[int, Sequence[Node]], parents: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, float]]:
    """Left upper corners: evenly in a line of several boxes, a single one below the middle of its direct parents."""
    places: dict[str, tuple[float, float]] = {}
    for number, line in sorted(lines.items()):
        for place, node in enumerate(line):
            above = [places[name][0] for name in direct(node.name, parents)]
            single = sum(above) / len(above) if above and len(line) == 1 else None
            left = WIDTH * (place + 1) / (len(line) + 1) - BOX / 2 if single is None else single
            places[node.name] = (left, float(number * (HIGH + GAP)))
    return places


def depth(name: str, parents: Mapping[str, Sequence[str]]) -> int:
    """Stages on the longest way from the raw files."""
    return max((1 + depth(one, parents) for one in parents[name]), default=0)


def direct(name: str, parents: Mapping[str, Sequence[str]]) -> list[str]:
    """The parents that are not ancestors of another parent."""
    implied = {above for one in parents[name] for above in _ancestors(one, parents)}
    return [one for one in parents[name] if one not in implied]


def _ancestors(name: str, parents: Mapping[str, Sequence[str]]) -> set[str]:
    return {above for one in parents[name] for above in (one, *_ancestors(one, parents))}


def _line(above: tuple[float, float], below: tuple[float, float]) -> Markup:
    (x1, y1), (x2, y2) = above, below
    return Markup('<line class="axis" x1="{:.0f}" y1="{:.0f}" x2="{:.0f}" y2="{:.0f}"/>').format(
        x1 + BOX / 2, y1 + HIGH, x2 + BOX / 2, y2
    )


def _box(node: Node, place: tuple[float, float]) -> Markup:
    x, y = place
    middle = x + BOX / 2
    return Markup(
        '<g class="{}"><title>{}</title><rect x="{:.0f}" y="{:.0f}" width="{}" height="{}" rx="4"/>'
        '<text class="name" x="{:.0f}" y="{:.0f}" text-anchor="middle">{}</text>'
        '<text x="{:.0f}" y="{:.0f}" text-anchor="middle">{}</text></g>'
    ).format(node.css, node.told or node.name, x, y, BOX, HIGH, middle, y + 14, node.name, middle, y + 28, node.text)
