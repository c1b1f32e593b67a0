from xml.etree import ElementTree

import numpy as np
import pytest

from ssl_tasks.report.bars import BINS, NAMES, VALUES, Bar, bars, binned, histogram
from ssl_tasks.report.figures import WIDTH


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar("one", [(3.0, "a"), (1.0, "b")], "4"), Bar("two", [(2.0, "a")], "2"), Bar("none", [(0.0, "a")], "0")]
    tree = ElementTree.fromstring(bars("t", rows))
    widths = [float(rect.get("width")) for rect in tree.iter("rect")]
    whole = WIDTH - NAMES - VALUES
    assert widths == pytest.approx([0.75 * whole, 0.25 * whole, 0.5 * whole, 0], abs=0.06)
    lefts = [float(rect.get("x")) for rect in tree.iter("rect")]
    assert lefts == pytest.approx([NAMES, NAMES + 0.75 * whole, NAMES, NAMES], abs=0.06)


def test_names_are_escaped_and_cut() -> None:
    svg = bars("<t>", [Bar("<script>alert('x')</script>", [(1.0, "a")], "<b>")])
    assert "<script>" not in svg
    assert "<b>" not in svg
    tree = ElementTree.fromstring(svg)
    assert tree.find("g/title").text == "<script>alert('x')</script>: <b>"
    assert tree.find("g/text").text == "<script>alert('x…"
    ElementTree.fromstring(bars("nothing", []))


@pytest.mark.parametrize("values", [np.arange(1, 101.0), np.geomspace(3, 70_000, 500), np.array([5.0, 5.0, 6.0])])
def test_every_value_is_counted_once(values: np.ndarray) -> None:
    edges, counts = binned(values)
    assert counts.sum() == len(values)
    assert (len(edges), len(counts)) == (BINS + 1, BINS)
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        last = high == edges[-1]
        assert count == sum(low <= value < high or (last and value == high) for value in values)


def test_ranges_grow_by_a_ratio_where_values_span_much() -> None:
    edges, _ = binned(np.array([1.0, 1000.0]))
    assert edges[1:] / edges[:-1] == pytest.approx(np.full(BINS, 1000 ** (1 / BINS)))
    edges, _ = binned(np.array([1.0, 29.0]))
    assert np.diff(edges) == pytest.approx(np.full(BINS, 28 / BINS))


def test_a_histogram_says_what_each_bar_holds() -> None:
    tree = ElementTree.fromstring(histogram("Width", "pixels", np.array([10.0] * 7 + [34.0] * 3)))
    told = [title.text for title in tree.iter("title")]
    assert told[0] == "10 to 11: 7"
    assert told[-1] == "33 to 34: 3"
    heights = [float(rect.get("height")) for rect in tree.iter("rect")]
    assert heights[-1] / heights[0] == pytest.approx(3 / 7, rel=1e-2)
    tree = ElementTree.fromstring(histogram("Bytes", "kB", np.array([1500.0, 90_000_000.0]), unit=1000.0))
    assert {"10", "100", "1,000", "10,000"} <= {text.text for text in tree.iter("text")}
