from xml.etree import ElementTree

import numpy as np
import pytest
from tests_fits import fits

from ssl_tasks.report.confusion import confused, counts, matrix, section

TRUTH = [0, 0, 0, 0, 1, 1, 2, 2]
CALLED = [0, 0, 1, 2, 1, 0, 2, 2]


def test_predictions_are_counted_by_truth_and_name() -> None:
    assert counts(fits(TRUTH, CALLED)).tolist() == [[2, 1, 1], [1, 1, 0], [0, 0, 2]]


def test_a_class_without_test_rows_has_an_empty_line() -> None:
    found = fits([0, 1], [2, 1])
    assert counts(found).tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    ElementTree.fromstring(matrix(found))


def test_cells_show_shares_of_the_class_in_percent() -> None:
    tree = ElementTree.fromstring(matrix(fits(TRUTH, CALLED)))
    cells = tree.findall("g")
    assert [cell.findtext("text") for cell in cells] == ["50", "25", "25", "50", "50", None, None, None, "100"]
    assert [cell.get("class") for cell in cells] == ["hit", "miss", "miss"] + ["miss", "hit", "miss"] + 2 * ["miss"] + [
        "hit"
    ]
    depths = [float(cell.find("rect").get("fill-opacity")) for cell in cells]
    assert depths[0] == pytest.approx(0.55 * 0.5**0.5, abs=1e-3)
    assert depths[5] == 0
    assert cells[1].findtext("title") == "cat called dog: 1 of 4 (25.0%)"


def test_the_largest_errors_are_named_first() -> None:
    found = confused(fits([0, 0, 0, 1, 1, 2] * 2, [1, 1, 0, 0, 1, 2] * 2, seeds=2), 15)
    assert found == [
        {"is": "cat", "called": "dog", "rows": "2.0", "share": "66.7%"},
        {"is": "dog", "called": "cat", "rows": "1.0", "share": "50.0%"},
    ]
    assert len(confused(fits(TRUTH, CALLED), 2)) == 2
    assert confused(fits([0, 1], [0, 1]), 15) == []


@pytest.mark.parametrize(("number", "readable"), [(30, True), (31, False)])
def test_many_classes_are_a_list_of_pairs(number: int, readable: bool) -> None:
    classes = [f"class {place:02d}" for place in range(number)]
    truth = np.repeat(np.arange(number), 2)
    called = np.where(np.arange(2 * number) % 2, (truth + 1) % number, truth)
    (budget,) = section([fits(truth.tolist(), called.tolist(), classes)])["budgets"]
    assert bool(budget["svg"]) == budget["readable"] == readable
    assert len(budget["pairs"]) == (3 if readable else 15)


def test_names_are_escaped_and_cut() -> None:
    svg = matrix(fits(TRUTH, CALLED, ["<b>", 'a "quoted" & very long name', "owl"]))
    assert "<b>" not in svg
    texts = [text.text for text in ElementTree.fromstring(svg).findall("text")]
    assert "<b>" in texts
    assert 'a "quote… name' in texts
