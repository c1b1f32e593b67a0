from xml.etree import ElementTree

import pytest

from ssl_tasks.report.figures import Series, budget_axis, line_chart, linear_axis, thin


@pytest.mark.parametrize(
    ("values", "percent", "texts"),
    [
        ([0.0, 100.0], False, ["0", "20", "40", "60", "80", "100"]),
        ([3.2, 5.9], False, ["3", "4", "5", "6"]),
        ([0.31, 0.98], True, ["20%", "40%", "60%", "80%", "100%"]),
        ([0.0, 0.0012], False, ["0.00000", "0.00025", "0.00050", "0.00075", "0.00100", "0.00125"]),
        ([0.0, 12500.0], False, ["0", "2,500", "5,000", "7,500", "10,000", "12,500"]),
        ([-1.0, 1.0], False, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round(values: list[float], percent: bool, texts: list[str]) -> None:
    axis = linear_axis("y", values, percent=percent)
    assert [text for _, text in axis.ticks] == texts
    assert axis.low <= min(values) <= max(values) <= axis.high


def test_a_constant_has_room() -> None:
    axis = linear_axis("y", [0.002, 0.002])
    assert axis.low < 0.002 < axis.high
    assert 0.3 < axis.share(0.002) < 0.7


def test_points_stand_where_they_belong() -> None:
    x, y = linear_axis("x", [0.0, 10.0]), linear_axis("y", [0.0, 1.0])
    tree = ElementTree.fromstring(line_chart("t", [Series("s", "pretrained", [(0, 0), (5, 0.5), (10, 1)])], x, y))
    points = [tuple(map(float, point.split(","))) for point in tree.find("polyline").get("points").split()]
    assert points[0] == (54.0, 214.0)
    assert points[2] == (402.0, 12.0)
    assert points[1] == (228.0, 113.0)


def test_labels_are_spread_by_their_logarithm() -> None:
    axis = budget_axis("labels", [(10, "10\n1%"), (100, "100\n10%"), (1000, "1,000\n100%")])
    shares = [axis.share(number) for number in (10, 100, 1000)]
    assert shares[1] - shares[0] == pytest.approx(shares[2] - shares[1])
    assert 0 < shares[0] < shares[2] < 1


def test_one_budget_is_a_chart_too() -> None:
    axis = budget_axis("labels", [(10, "10\n100%")])
    assert axis.share(10) == pytest.approx(0.5)


def test_text_is_escaped() -> None:
    chart = line_chart('<b>"x"', [], linear_axis("<i>", [0, 1]), linear_axis("y", [0, 1]))
    assert "<b>" not in chart
    assert "<i>" not in chart
    ElementTree.fromstring(chart)


def test_thinning_keeps_the_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(1000)]
    kept = thin(points, 100)
    assert len(kept) == 100
    assert sum(y for _, y in kept) / 100 == pytest.approx(sum(y for _, y in points) / 1000)
    assert thin(points[:50], 100) == points[:50]
