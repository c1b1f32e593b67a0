from __future__ import annotations

from typing import Any

from ssl_tasks.report.domains import section, sentences


def summary_line(name: str, low: float, high: float) -> dict[str, Any]:
    line = {"strategy": name, "label_fraction": 1.0, "labels_per_class": 0, "num_labels": 40, "num_seeds": 5}
    line |= {"pretrained": 0.8, "metric": "accuracy", "counterpart": "knn", "counterpart_difference": (low + high) / 2}
    return line | {"counterpart_low": low, "counterpart_high": high}


def domain_line(target: str, name: str, **more: Any) -> dict[str, Any]:
    line = {"target": target, "sources": ["a"], "strategy": name, "label_fraction": 1.0, "labels_per_class": 0}
    return line | {"num_labels": 40, "metric": "accuracy", "value": 0.8} | more


def measured() -> dict[str, Any]:
    gap = {"mmd_before": 0.2, "mmd_after": 0.01, "a_distance_before": 1.9, "a_distance_after": -0.004, "source": 0.9}
    return {
        "summary": [summary_line("coral", 0.1, 0.3), summary_line("concatenate", 0.1, 0.3)],
        "domains": [
            domain_line("b", "coral", **gap),
            domain_line("b", "knn", mmd_before=0.2, a_distance_before=1.9),
            domain_line("b", "concatenate", mmd_before=0.2, a_distance_before=1.9),
            domain_line("b", "majority"),
        ],
    }


def test_a_sentence_says_whose_labels_and_whose_test_rows() -> None:
    (sentence,) = sentences(measured())
    assert sentence == "Labels are of a and test rows of b, of which no label was used."
    assert sentences({"summary": []}) == []


def test_every_domain_left_out_is_named() -> None:
    lines = [domain_line(target, "knn") for target in ("a", "b", "c")]
    (sentence,) = sentences({"summary": [], "domains": lines})
    assert sentence.startswith("Each of a, b and c was left out once")


def test_one_label_a_class_and_all_labels_are_told_apart() -> None:
    few = {"labels_per_class": 1, "label_fraction": 0.1}
    lines = [summary_line("coral", 0.1, 0.3), summary_line("coral", -0.3, -0.1) | few]
    rows = section({"summary": lines, "domains": [domain_line("b", "coral"), domain_line("b", "coral", **few)]})
    assert [row["adapting"] for row in rows] == ["better", "worse"]


def test_the_table_shows_gaps_before_and_after() -> None:
    coral, knn, combined, majority = section(measured())
    assert (coral["mmd"], coral["a_distance"]) == ("0.200 to 0.010", "1.90 to 0.00")
    assert (coral["value"], coral["source"], coral["adapting"]) == ("80.0%", "90.0%", "better")
    assert (knn["mmd"], knn["source"], knn["adapting"]) == ("0.200", "", "")
    assert combined["adapting"] == ""  # it has a counterpart, and adapts to nothing
    assert (majority["strategy"], majority["mmd"]) == ("the most frequent class", "")
    assert section({"summary": []}) == []
