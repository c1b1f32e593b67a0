from __future__ import annotations

from typing import Any

import pytest

from ssl_tasks.report.units import signed
from ssl_tasks.report.verdict import decide


def line(fraction: float, random: tuple[float, float, float], scratch: tuple[float, float, float], **more: Any) -> Any:
    """A summary line with (difference, low, high) against each baseline, in points."""
    found = {"strategy": "linear_probe", "metric": "accuracy", "label_fraction": fraction, "pretrained": 0.8}
    found |= {"num_seeds": 5, "num_labels": int(1000 * fraction), "random_init": 0.7, "from_scratch": 0.6}
    found |= dict(zip(("difference", "low", "high"), (value / 100 for value in random), strict=True))
    found |= dict(zip(("scratch_difference", "scratch_low", "scratch_high"), (v / 100 for v in scratch), strict=True))
    return found | more


BETTER, OPEN, WORSE, NIL = (10.0, 7.0, 13.0), (1.0, -2.0, 4.0), (-9.0, -12.0, -6.0), (0.1, -0.4, 0.6)
SLIGHT = (0.2, 0.1, 0.3)


def verdict(*lines: Any, groups: int = 200) -> Any:
    return decide(lines, margin=0.01, test_groups=groups, method="simclr")


@pytest.mark.parametrize(
    ("lines", "outcome", "begins"),
    [
        ([line(0.1, BETTER, BETTER)], "helped", "Pretraining helped: with 10% of the labels (100), a linear probe"),
        (
            [line(0.1, BETTER, OPEN)],
            "partly",
            "Pretraining improved the encoder; whether that is more than training from scratch gives, the test cannot",
        ),
        (
            [line(0.1, BETTER, WORSE)],
            "partly",
            "Pretraining improved the encoder; training from scratch was better with 10% of the labels (100):",
        ),
        (
            [line(0.01, BETTER, OPEN), line(0.1, OPEN, BETTER), line(1.0, OPEN, WORSE)],
            "partly",
            "Pretraining improved the encoder; training from scratch was better with all labels (1,000): with 1% of",
        ),
        (
            [line(0.1, BETTER, SLIGHT)],
            "partly",
            "Pretraining improved the encoder; its gain over training from scratch with 10% of the labels (100) is "
            "below 1.0 points:",
        ),
        (
            [line(0.01, BETTER, OPEN), line(1.0, OPEN, BETTER)],
            "partly",
            "Pretraining improved the encoder; it beat the untrained network and training from scratch, but not both",
        ),
        ([line(0.1, SLIGHT, SLIGHT)], "no_gain", "No evidence that pretraining helped: at no label budget"),
        ([line(0.1, (0.6, 0.1, 1.5), BETTER)], "undecided", "Pretraining improved the encoder; whether by the 1.0"),
        ([line(0.1, WORSE, BETTER)], "worse", "Pretraining did not help, it did harm"),
        ([line(0.1, NIL, BETTER)], "no_gain", "No evidence that pretraining helped: at no label budget"),
        ([line(0.1, OPEN, BETTER)], "undecided", "No evidence that pretraining helped, and none against it"),
        ([], "not_measured", "Not measured"),
    ],
)
def test_outcome_and_sentence(lines: list[Any], outcome: str, begins: str) -> None:
    found = verdict(*lines)
    assert found.outcome == outcome
    assert found.sentence.startswith(begins)


def test_the_numbers_are_said() -> None:
    sentence = verdict(line(1.0, BETTER, OPEN)).sentence
    assert "with all labels (1,000)" in sentence
    assert "reached 80.0% accuracy, 10.0 points more (95% interval +7.0 to +13.0) than on the same network" in sentence
    assert "1.0 points more (95% interval \N{MINUS SIGN}2.0 to +4.0) than that network trained from scratch" in sentence


def test_headline_takes_the_fewest_labels_that_suffice() -> None:
    found = verdict(line(1.0, BETTER, WORSE), line(0.01, OPEN, OPEN), line(0.1, BETTER, BETTER))
    assert found.outcome == "helped"
    assert "with 10% of the labels" in found.sentence
    assert [detail.split(":")[0] for detail in found.details] == [
        "With 1% of the labels (10)",
        "With all labels (1,000)",
    ]
    assert found.details[0].count("undecided") == 2
    assert found.details[1].endswith("worse.")


def test_harm_at_one_budget_is_said_although_another_helped() -> None:
    found = verdict(line(0.01, WORSE, WORSE), line(1.0, BETTER, BETTER))
    assert found.outcome == "helped"
    assert found.details[0].count("worse") == 2
    assert "; with 1% of the labels (10) it was worse than untrained, \N{MINUS SIGN}9.0 points" in found.sentence
    assert "it was worse than from scratch" in found.sentence


def test_a_baseline_that_had_not_converged_cannot_be_beaten() -> None:
    lines = [line(0.01, BETTER, BETTER), line(0.1, BETTER, BETTER), line(1.0, BETTER, OPEN)]
    found = decide(lines, margin=0.01, test_groups=99, method="m", fitted={"0.01": 0.9, "0.1": 1.0, "1": 0.5})
    assert found.outcome == "helped"
    assert "with 10% of the labels" in found.sentence
    assert ["not converged" in detail for detail in found.details] == [True, True]
    weak = decide(lines, margin=0.01, test_groups=99, method="m", fitted={"0.01": 0.9, "0.1": 0.9, "1": 0.5})
    assert weak.outcome == "partly"
    assert (
        "it beat the untrained network, and training from scratch had not converged within transfer.scratch.steps with "
        "1% of the labels (10) and 10% of the labels (100), so that comparison is open:"
    ) in weak.sentence
    assert weak.sentence.endswith("from scratch on the same labels (which had not converged).")
    assert weak.details[0].endswith("(which had not converged) +10.0 points (95% interval +7.0 to +13.0): undecided.")


@pytest.mark.parametrize("last", [line(1.0, OPEN, BETTER), line(1.0, BETTER, BETTER)])
def test_a_baseline_that_had_not_converged_is_not_beaten_at_another_budget_either(last: Any) -> None:
    found = decide([line(0.1, BETTER, OPEN), last], margin=0.01, test_groups=99, method="m", fitted={"1": 0.5})
    assert found.outcome == "partly"
    assert "scratch had not converged within transfer.scratch.steps with all labels (1,000), so that" in found.sentence
    assert "not both" not in found.sentence


def test_where_from_scratch_was_better_is_said_before_that_another_had_not_converged() -> None:
    lines = [line(0.01, BETTER, BETTER), line(1.0, BETTER, WORSE)]
    found = decide(lines, margin=0.01, test_groups=99, method="m", fitted={"0.01": 0.5})
    assert found.sentence.startswith("Pretraining improved the encoder; training from scratch was better with all")
    assert "with all labels (1,000) it was worse than from scratch, \N{MINUS SIGN}9.0 points" in found.sentence


def test_only_the_first_strategy_speaks() -> None:
    found = verdict(line(0.1, OPEN, OPEN), line(0.1, BETTER, BETTER, strategy="knn"))
    assert found.outcome == "undecided"
    assert len(found.lines) == 2


def test_few_test_groups_decide_nothing() -> None:
    assert verdict(line(0.1, BETTER, BETTER), groups=20).outcome == "helped"
    found = verdict(line(0.1, BETTER, BETTER), groups=19)
    assert found.outcome == "too_few"
    assert found.sentence.startswith("Too few test groups (19) for an answer: with 10% of the labels")


def test_few_seeds_decide_nothing() -> None:
    assert verdict(line(0.1, BETTER, BETTER, num_seeds=5)).outcome == "helped"
    found = verdict(line(0.1, BETTER, BETTER, num_seeds=4), line(1.0, BETTER, WORSE, num_seeds=1))
    assert found.outcome == "too_few"
    assert found.sentence.startswith("Too few seeds (4) for an answer: with 10% of the labels (100), a linear probe on")
    assert found.sentence.endswith("; at least 5 are needed (transfer.seeds).")
    assert found.details[0].startswith("With all labels (1,000): 80.0% (1 of the 5 seeds that an answer needs).")
    assert found.details[0].count("undecided") == 2


def test_a_baseline_that_few_seeds_have_is_not_beaten() -> None:
    assert verdict(line(0.1, BETTER, BETTER, scratch_num_seeds=5)).outcome == "helped"
    assert verdict(line(0.1, BETTER, BETTER, scratch_num_seeds=4)).outcome == "partly"


def test_a_budget_with_few_seeds_leaves_the_answer_to_the_others() -> None:
    found = verdict(line(0.1, BETTER, WORSE, num_seeds=4), line(1.0, BETTER, BETTER))
    assert found.outcome == "helped"
    assert "with all labels (1,000)" in found.sentence
    assert "it was worse" not in found.sentence
    assert found.details[0].count("undecided") == 2


@pytest.mark.parametrize("metric", ["mean_iou", "iou_over_half"])
def test_a_baseline_of_masks_or_boxes_that_may_not_have_converged_cannot_be_beaten(metric: str) -> None:
    lines = [line(0.1, BETTER, BETTER, metric=metric)]
    assert decide(lines, margin=0.01, test_groups=99, method="m", fitted={"0.1": 0.99}).outcome == "helped"
    found = decide(lines, margin=0.01, test_groups=99, method="m", fitted={"0.1": 0.9})
    assert found.outcome == "partly"
    assert "training from scratch may not have converged within transfer.scratch.steps with 10% of" in found.sentence
    assert found.sentence.endswith("from scratch on the same labels (which may not have converged).")


def test_no_minus_zero() -> None:
    assert signed(-0.0001) == "0.0"
    assert signed(-0.012) == "\N{MINUS SIGN}1.2"
    assert signed(0.012) == "+1.2"


def test_what_does_not_stand_the_correction_is_open() -> None:
    assert verdict(line(0.1, BETTER, BETTER, p=0.05, scratch_p=0.05)).outcome == "helped"
    assert verdict(line(0.1, BETTER, BETTER, p=0.05, scratch_p=0.06)).outcome == "partly"
    assert verdict(line(0.1, BETTER, BETTER, p=0.06, scratch_p=0.01)).outcome == "undecided"
    assert verdict(line(0.1, WORSE, BETTER, p=0.04)).outcome == "worse"
    assert verdict(line(0.1, WORSE, BETTER, p=0.06)).outcome == "no_gain"


def test_raw_input_that_was_better_is_said() -> None:
    raw = dict(zip(("raw_difference", "raw_low", "raw_high"), (value / 100 for value in WORSE), strict=True))
    found = verdict(line(0.1, BETTER, BETTER, **raw))
    assert found.sentence.endswith(
        "; with 10% of the labels (100) it was worse than raw input, \N{MINUS SIGN}9.0 points (95% interval "
        "\N{MINUS SIGN}12.0 to \N{MINUS SIGN}6.0)."
    )
    assert "raw input" not in verdict(line(0.1, BETTER, BETTER, **raw, raw_p=0.2)).sentence


def test_budgets_of_labels_per_class_are_said_as_such() -> None:
    found = verdict(line(0.02, BETTER, BETTER, labels_per_class=1), line(0.1, BETTER, BETTER, labels_per_class=5))
    assert "with 1 label a class (20)" in found.sentence
    assert found.details[0].startswith("With 5 labels a class (100):")


def test_what_trains_the_whole_network_has_one_baseline() -> None:
    tuned = {"strategy": "fine_tune"}
    found = verdict(line(0.1, BETTER, BETTER, **tuned), line(1.0, OPEN, OPEN, **tuned))
    assert found.outcome == "helped"
    assert found.sentence.count("points more") == 1
    assert "untrained" not in found.sentence + found.details[0]
    nothing = verdict(line(0.1, SLIGHT, SLIGHT, **tuned))
    assert "gain more over the same network trained from scratch than 1.0 points" in nothing.sentence


def test_what_trains_the_whole_network_is_not_called_better_than_a_baseline_that_had_not_converged() -> None:
    lines = [line(0.1, BETTER, BETTER, strategy="fine_tune")]
    found = decide(lines, margin=0.01, test_groups=99, method="m", fitted={"0.1": 0.9})
    assert found.outcome == "undecided"
    assert found.sentence.startswith("Whether pretraining helped is open without a fair baseline; raise transfer.scr")
    assert found.sentence.endswith("from scratch on the same labels (which had not converged).")
