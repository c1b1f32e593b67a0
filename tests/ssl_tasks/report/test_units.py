"""Values in the unit of their metric, and that less of an error is better wherever two are compared."""

from __future__ import annotations

from typing import Any

import pytest

from ssl_tasks.report.comparison import headline, table
from ssl_tasks.report.judging import judge
from ssl_tasks.report.ranking import Outcome, rank
from ssl_tasks.report.units import METRIC_TITLES, amount, apart, change, reached, spread, written
from ssl_tasks.report.verdict import decide
from ssl_tasks.transfer import kinds

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (1234.5, "1,234"),
        (123456.0, "123,456"),
        (12.345, "12.3"),
        (1.2345, "1.23"),
        (0.012345, "0.0123"),
        (-0.5, f"{MINUS}0.500"),
        (-1234.5, f"{MINUS}1,234"),
        (1.5e-9, "1.50e-09"),
    ],
)
def test_amounts_have_three_digits_that_count(value: float, text: str) -> None:
    assert amount(value) == text


def test_shares_are_in_percent_and_errors_in_their_unit() -> None:
    assert written("accuracy", 0.8312) == "83.1%"
    assert (reached("accuracy", 0.8312), reached("rmse", 2.314)) == ("83.1% accuracy", "RMSE 2.31")
    assert (apart("macro_f1", 0.021), apart("mae", 0.021)) == ("2.1 points", "0.0210")
    assert (change("recall_at_1", -0.021), change("r2", -0.021)) == (f"{MINUS}2.1", f"{MINUS}0.0210")
    assert change("rmse", 3.0) == "+3.00"


def test_the_ends_of_an_interval_have_the_decimals_of_the_largest() -> None:
    assert spread("rmse", -0.907, -1.79, 0.0055) == (f"{MINUS}0.91", f"{MINUS}1.79", "+0.01")
    assert spread("rmse", -0.907, -1.79, -0.0005) == (f"{MINUS}0.91", f"{MINUS}1.79", "0.00")
    assert spread("accuracy", 0.021, -0.0002, 0.04) == ("+2.1", "0.0", "+4.0")


def test_every_metric_has_a_name() -> None:
    names = {name for kind in kinds.KINDS.values() for name in (*kind.metrics, *kind.choices)}
    assert names <= METRIC_TITLES.keys()


def line(difference: float, spread: float = 1.0, **more: Any) -> dict[str, Any]:
    """RMSE of ridge against the untrained network and training from scratch, by the same difference to both."""
    found: dict[str, Any] = {"strategy": "ridge", "metric": "rmse", "label_fraction": 1.0, "labels_per_class": 0}
    found |= {"num_labels": 100, "pretrained": 40.0 + difference, "random_init": 40.0, "from_scratch": 40.0}
    found |= {"num_seeds": 5, "majority": 50.0, "scale": 50.0}
    for prefix in ("", "scratch_"):
        ends = (difference, difference - spread, difference + spread)
        found |= dict(zip((f"{prefix}difference", f"{prefix}low", f"{prefix}high"), ends, strict=True))
    return found | more


@pytest.mark.parametrize(
    ("difference", "judged", "outcome", "said"),
    [
        (-10.0, "better", "helped", f"reached RMSE 30.0, 10.0 less (95% interval {MINUS}11.0 to {MINUS}9.0) than on"),
        (10.0, "worse", "worse", "did harm: with all labels (100), ridge regression"),
        (-0.2, "open", "undecided", "none against it"),
    ],
)
def test_less_of_an_error_is_better(difference: float, judged: str, outcome: str, said: str) -> None:
    verdict = decide([line(difference)], margin=0.01, test_groups=200, method="scarf")
    assert judge(line(difference), "") == judged
    assert verdict.outcome == outcome
    assert said in verdict.sentence
    assert "points" not in verdict.sentence


def test_what_matters_is_a_share_of_what_the_mean_reaches() -> None:
    """1% of 50 is 0.5: a sure gain of 0.4 is none that matters, one of 0.6 is."""
    for difference, outcome in ((-0.4, "no_gain"), (-0.6, "helped")):
        verdict = decide([line(difference, 0.05)], margin=0.01, test_groups=200, method="scarf")
        assert verdict.outcome == outcome
    verdict = decide([line(-0.4, 0.05)], margin=0.01, test_groups=200, method="scarf")
    assert "than 1% of the RMSE that the mean alone reaches; the most it could be is" in verdict.sentence


def test_methods_are_ranked_by_their_least_error() -> None:
    outcomes = [
        Outcome(name, name, "mlp", 0, 8, "completed", None, {"transfer": {"summary": [line(difference)]}}, None)
        for name, difference in (("worse", 5.0), ("best", -9.0), ("middle", -3.0))
    ]
    lines = rank(outcomes)
    assert [found.candidate for found in lines] == ["best", "middle", "worse"]
    assert headline(lines).startswith("First of 3: best, 31.0 by ridge regression with 100% of the labels")
    assert f"{MINUS}9.0 [{MINUS}10.0, {MINUS}8.0] over its backbone" in headline(lines)
    assert "2 of 3 beat theirs" in headline(lines)
    assert table(lines, intervals=False)[1][0][2] == f"31.0 ({MINUS}9.00)"
