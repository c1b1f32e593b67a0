"""The order of methods, means and intervals over pretrainings, and the page that shows them."""

import dataclasses
import math
from typing import Any

import pytest

from ssl_tasks.report.comparison import headline, render, table
from ssl_tasks.report.ranking import Outcome, rank


def entry(fraction: float, pretrained: float, difference: float, reach: float = 0.02) -> dict[str, Any]:
    return {
        "strategy": "linear_probe",
        "label_fraction": fraction,
        "num_labels": round(1000 * fraction),
        "metric": "accuracy",
        "pretrained": pretrained,
        "random_init": pretrained - difference,
        "difference": difference,
        "low": difference - reach,
        "high": difference + reach,
        "num_seeds": 5,
    }


def outcome(name: str, *entries: dict[str, Any], seed: int = 0, **measured: Any) -> Outcome:
    pretrain = {"steps": 100, "rows_per_second": 50.0, "rankme": 4.0, "uniformity": -1.5, **measured}
    metrics = {"pretrain": pretrain, "transfer": {"summary": list(entries)}}
    return Outcome(name, name, "resnet18", seed, 64, "completed", None, metrics, f"{name}.html")


def failed(name: str) -> Outcome:
    return Outcome(name, name, "resnet18", 0, 64, "failed", "pretrain: the loss is nan at step 3", {}, None)


def test_the_first_strategy_at_the_smallest_budget_decides():
    lines = rank(
        [
            failed("broken"),
            outcome("late", entry(0.1, 0.7, 0.1), entry(1.0, 0.99, 0.2)),
            outcome("early", entry(1.0, 0.8, 0.1), entry(0.1, 0.75, -0.01)),
        ]
    )
    assert [line.candidate for line in lines] == ["early", "late", "broken"]
    assert [score.label_fraction for score in lines[0].scores] == [0.1, 1.0]
    assert lines[0].seconds == 100 * 64 / 50
    assert lines[2].scores == []
    assert lines[2].errors == ["seed 0: pretrain: the loss is nan at step 3"]


def test_of_few_pretrainings_the_widest_interval_of_single_runs_is_shown():
    runs = [outcome("a", entry(0.1, 0.7, 0.10, 0.02), seed=0), outcome("a", entry(0.1, 0.8, 0.14, 0.01), seed=1)]
    (score,) = rank(runs)[0].scores
    assert (score.pretrained, score.difference) == (pytest.approx(0.75), pytest.approx(0.12))
    assert (score.low, score.high) == (pytest.approx(0.08), pytest.approx(0.15))


def test_of_three_pretrainings_and_more_the_interval_is_students():
    differences = [0.10, 0.12, 0.17]
    runs = [outcome("a", entry(0.1, 0.7, value), seed=seed) for seed, value in enumerate(differences)]
    (score,) = rank(runs)[0].scores
    mean = sum(differences) / 3
    error = math.sqrt(sum((value - mean) ** 2 for value in differences) / 2 / 3)
    assert score.high - mean == pytest.approx(4.302653 * error, rel=1e-5)  # t of two degrees of freedom at 97.5%
    assert mean - score.low == pytest.approx(4.302653 * error, rel=1e-5)


def test_measures_are_means_of_the_runs_that_have_them():
    runs = [outcome("a", entry(0.1, 0.7, 0.1), rankme=2.0, alignment=0.5), outcome("a", entry(0.1, 0.7, 0.1), seed=1)]
    (line,) = rank(runs)
    assert line.measures == {
        "rankme": 3.0, "alignment": 0.5, "uniformity": -1.5, "rows_per_second": 50.0, "peak_memory_bytes": None,
    }  # fmt: skip
    assert line.num_runs == 2


def test_the_headline_says_who_came_first_and_how_many_beat_their_untrained_backbone():
    lines = rank([outcome("good", entry(0.1, 0.7, 0.1)), outcome("open", entry(0.1, 0.6, 0.01))])
    assert headline(lines) == (
        "First of 2: good, 70.0% by linear probe with 10% of the labels (100), +10.0 [+8.0, +12.0] points over its "
        "backbone untrained. 1 of 2 beat theirs at this budget."
    )
    assert headline(rank([failed("broken")])) == "No candidate has a result."


def test_candidates_of_few_draws_of_labels_beat_nothing():
    few = entry(0.1, 0.7, 0.1) | {"num_seeds": 4}
    lines = rank([outcome("few", few, seed=0), outcome("few", entry(0.1, 0.7, 0.1), seed=1)])
    assert lines[0].scores[0].num_seeds == 4
    assert headline(lines).endswith(
        "0 of 1 beat theirs at this budget. Fewer than 5 draws of labels, as 1 of them have (transfer.seeds), tell "
        "nothing."
    )
    assert 'class="undecided">70.0%' in render(lines, recipe="r", seeds=2)


def test_the_table_has_a_cell_for_each_budget_and_measure():
    names, cells = table(rank([outcome("a", entry(0.1, 0.7, 0.1))]), intervals=True)
    assert names == [
        *("method", "backbone", "linear_probe 10%", "RankMe", "alignment", "uniformity", "rows/s", "memory"),
    ]  # fmt: skip
    assert cells == [["a", "resnet18", "70.0% (+10.0 [+8.0, +12.0])", "4.0", "-", "-1.50", "50", "-"]]
    assert table(rank([outcome("a", entry(0.1, 0.7, 0.1))]), intervals=False)[1][0][2] == "70.0% (+10.0)"


def test_the_page_escapes_names_and_lists_failures():
    named = dataclasses.replace(outcome("<b>a</b>", entry(0.1, 0.7, -0.1)), backbone="<i>net</i>")
    page = render(rank([named, failed("broken")]), recipe="<u>r</u>", seeds=1)
    for tag in ("<b>", "<i>", "<u>"):
        assert tag not in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert 'class="worse">70.0%' in page
    assert "pretrain: the loss is nan at step 3" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_page_without_any_result_says_so():
    page = render(rank([failed("broken")]), recipe="r", seeds=3)
    assert "No candidate has a result." in page
