from __future__ import annotations

from typing import Any

import pytest

from ssl_tasks.report.advice import advice


def line(name: str, labels: int, val: float | None, test: float, **differences: float) -> dict[str, Any]:
    """A summary line; each difference has an interval of 2 points to either side."""
    found: dict[str, Any] = {"strategy": name, "metric": "accuracy", "label_fraction": labels / 100}
    found |= {"num_labels": labels, "num_seeds": 5, "pretrained": test} | ({} if val is None else {"val": val})
    for prefix, difference in {"plain": 0.1, "scratch": 0.1, **differences}.items():
        start = "" if prefix == "plain" else f"{prefix}_"
        found |= {f"{start}difference": difference, f"{start}low": difference - 0.02, f"{start}high": difference + 0.02}
    return found


def test_the_strategy_that_is_best_on_val_is_named_and_not_the_best_on_test() -> None:
    lines = [
        line("linear_probe", 100, 0.9, 0.85),
        line("knn", 100, 0.8, 0.88),
        line("linear_probe", 10, 0.5, 0.55),
        line("knn", 10, 0.6, 0.5, raw=0.3, majority=0.3),
    ]
    assert advice({"summary": lines}, 0.01) == [
        "With 10% of the labels (10), use a k-nearest-neighbour vote (best on val, 50.0% accuracy on test); it was "
        "better than the same network untrained, training from scratch, raw input without an encoder and always the "
        "most frequent class.",
        "With all labels (100), use a linear probe (best on val, 85.0% accuracy on test); it was better than the same "
        "network untrained and training from scratch.",
    ]


def test_where_pretraining_did_not_help_it_says_so() -> None:
    (sentence,) = advice({"summary": [line("knn", 10, 0.6, 0.5, scratch=0.01, raw=-0.1)]}, 0.01)
    assert sentence == (
        "With 10% of the labels (10), use a k-nearest-neighbour vote (the only strategy, 50.0% accuracy on test). "
        "Pretraining did not help there: it was worse than raw input without an encoder (\N{MINUS SIGN}10.0 points), "
        "and not shown to be better than training from scratch (+1.0 points)."
    )
    (sentence,) = advice({"summary": [line("knn", 10, 0.6, 0.5, scratch=0.01)]}, 0.01)
    assert sentence.endswith("did not show to help there against training from scratch (+1.0 points).")
    (sentence,) = advice({"summary": [line("knn", 10, 0.6, 0.5)]}, 0.11)
    assert sentence.endswith(
        "against the same network untrained (+10.0 points) and training from scratch (+10.0 points)."
    )


def test_a_baseline_that_had_not_converged_is_not_beaten() -> None:
    measured = {"summary": [line("knn", 10, 0.6, 0.5)], "scratch": {"train_accuracy": {"0.1": 0.9}}}
    (sentence,) = advice(measured, 0.01)
    assert sentence.endswith("there against training from scratch (+10.0 points; it had not converged).")


@pytest.mark.parametrize("name", ["train_pixel_accuracy", "train_iou_over_half"])
def test_nor_is_one_of_masks_or_boxes_that_may_not_have_converged(name: str) -> None:
    lines = [{**line("segmentation", 10, 0.6, 0.5), "metric": "mean_iou"}]
    (sentence,) = advice({"summary": lines, "scratch": {name: {"0.1": 0.9}}, "task": "segmentation"}, 0.01)
    assert sentence.endswith("there against training from scratch (+10.0 points; it may not have converged).")
    (sentence,) = advice({"summary": lines, "scratch": {name: {"0.1": 0.99}}, "task": "segmentation"}, 0.01)
    assert sentence.endswith("better than the same network untrained and training from scratch.")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("classification", "always the most frequent class."),
        ("multi_label", "always how frequent each class is."),
        ("regression", "always the mean of the labelled numbers."),
        ("segmentation", "always the most frequent class everywhere."),
        ("localization", "always the mean of the boxes."),
    ],
)
def test_the_least_baseline_is_named_as_the_task_has_it(task: str, said: str) -> None:
    (sentence,) = advice({"summary": [line("knn", 10, 0.6, 0.5, majority=0.3)], "task": task}, 0.01)
    assert sentence.endswith(said)


def test_shares_that_are_as_many_labels_are_budgets_of_their_own() -> None:
    lines = [line("knn", 10, 0.6, 0.5), {**line("knn", 10, 0.6, 0.5), "label_fraction": 0.11}]
    first, second = advice({"summary": lines}, 0.01)
    assert first.startswith("With 10% of the labels (10), use a k-nearest-neighbour vote (the only strategy")
    assert second.startswith("With 11% of the labels (10), use a k-nearest-neighbour vote (the only strategy")


def test_what_trains_the_whole_network_is_compared_with_training_from_scratch_alone() -> None:
    (sentence,) = advice({"summary": [line("fine_tune", 10, 0.6, 0.5)]}, 0.01)
    assert sentence.endswith("; it was better than training from scratch.")


def test_without_val_labels_nothing_is_chosen() -> None:
    (sentence,) = advice({"summary": [line("knn", 10, None, 0.5), line("linear_probe", 10, None, 0.6)]}, 0.01)
    assert sentence.startswith("No val row has a label")
    assert advice({"summary": []}, 0.01) == []


def test_limits_are_said() -> None:
    measured = {"summary": [], "capped": {"rbf_svm": 5000}, "warnings": ["1 of 9 fits failed: no such matrix"]}
    assert advice(measured, 0.01) == [
        "A support vector machine with a Gaussian kernel trained on 5,000 rows at most (transfer.slow_rows).",
        "1 of 9 fits failed: no such matrix.",
    ]


def test_of_few_seeds_nothing_is_called_better_or_worse() -> None:
    counterpart = {"counterpart": "fine_tune", "counterpart_value": 0.4}
    made = line("lp_ft", 10, 0.6, 0.5, raw=-0.1, counterpart=0.1) | counterpart
    first, second = advice({"summary": [made]}, 0.01)
    assert "it was worse than raw input" in first
    assert second.endswith("better.")
    first, second, why = advice({"summary": [made | {"num_seeds": 4}]}, 0.01)
    assert "did not show to help there against training from scratch (+10.0 points) and raw input" in first
    assert second.endswith("undecided.")
    assert why == "Nothing is called better or worse by fewer than 5 seeds, and there are 4 (transfer.seeds)."
