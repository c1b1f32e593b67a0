from xml.etree import ElementTree

import pytest
from tests_fits import fits

from ssl_tasks.report.calibration import bins, expected_error, section
from ssl_tasks.report.predictions import Fits


def sure(*cells: tuple[float, int, int], seeds: int = 1) -> Fits:
    """Fits with predictions of (confidence, how many, how many of them right)."""
    confidence = [value for value, number, _ in cells for _ in range(number)]
    called = [int(place >= right) for _, number, right in cells for place in range(number)]
    return fits([0] * len(called), called, confidence=confidence, seeds=seeds)


def test_the_error_of_a_constructed_case() -> None:
    """Six at 0.95 of which three are right, four at 0.55 of which three are: 0.6 * 0.45 + 0.4 * 0.2."""
    found = bins(sure((0.95, 6, 3), (0.55, 4, 3)))
    assert [(one.low, one.count) for one in found] == [(0.5, 4), (0.9, 6)]
    assert [one.accuracy for one in found] == [0.75, 0.5]
    assert expected_error(found) == pytest.approx(0.6 * 0.45 + 0.4 * 0.2)


def test_what_is_right_as_often_as_it_says_has_no_error() -> None:
    assert expected_error(bins(sure((0.8, 10, 8), (0.6, 5, 3)))) == pytest.approx(0)


@pytest.mark.parametrize(("confidence", "low"), [(0.3, 0.2), (0.7, 0.6), (0.7000001, 0.7), (1.0, 0.9), (0.0, 0.0)])
def test_a_bin_holds_its_upper_edge(confidence: float, low: float) -> None:
    (found,) = bins(sure((confidence, 1, 1)))
    assert found.low == low


def test_marks_stand_at_confidence_and_accuracy_with_areas_of_their_rows() -> None:
    (diagram,) = section([sure((0.95, 64, 32), (0.55, 16, 12), (0.15, 1, 0))])
    tree = ElementTree.fromstring(diagram["svg"])
    marks = [circle for circle in tree.findall("circle") if "mark" in circle.get("class")]
    assert [float(mark.get("r")) for mark in marks] == pytest.approx([9 * (16 / 81) ** 0.5, 8.0], abs=0.06)
    assert float(marks[1].get("cx")) == pytest.approx(54 + 0.95 * 348, abs=0.06)
    assert float(marks[1].get("cy")) == pytest.approx(12 + 0.5 * 202, abs=0.06)
    assert len([circle for circle in tree.findall("circle") if "dot" in circle.get("class")]) == 1


def test_words_say_whether_it_is_too_sure() -> None:
    sure_of_it, unsure = section([sure((0.9, 10, 5)), sure((0.5, 10, 9))])
    assert sure_of_it["caption"] == "With all labels (9): expected calibration error 40.0%"
    assert sure_of_it["tendency"] == "40.0 points too sure"
    assert unsure["tendency"] == "40.0 points too unsure"
    assert sure_of_it["bins"] == [{"range": "80 to 90%", "count": "10.0", "confidence": "90.0%", "accuracy": "50.0%"}]
