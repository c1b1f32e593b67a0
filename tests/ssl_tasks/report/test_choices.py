from __future__ import annotations

from typing import Any

import pyarrow as pa

from ssl_tasks.report import choices, sections

CELL = {"label_fraction": 0.1, "labels_per_class": 0}


class Tables:
    """What `section` reads of an artifact."""

    def __init__(self, **tables: list[dict[str, Any]]) -> None:
        self.tables = {f"{name}.parquet": rows for name, rows in tables.items()}

    def names(self) -> list[str]:
        return list(self.tables)

    def table(self, name: str) -> pa.Table:
        return pa.Table.from_pylist(self.tables[name])


def made(facts: dict[str, list[float]], strategy: str = "lora", method: str = "mae") -> Any:
    rows = [
        {**CELL, "strategy": strategy, "method": method, "seed": seed, "name": name, "value": value}
        for name, values in facts.items()
        for seed, value in enumerate(values)
    ]
    return Tables(choices=rows, metrics=[{**CELL, "strategy": strategy, "num_labels": 13}])


def test_a_range_of_what_was_chosen_and_means_of_shares() -> None:
    facts = {"learning_rate": [0.001, 0.003], "trained_share": [0.02, 0.03], "val_accuracy": [0.5, 0.6], "k": [5, 5]}
    assert choices.section(made(facts), "mae") == [
        {
            "strategy": "low-rank adapters",
            "labels": "10% of the labels (13)",
            "text": "k 5; learning rate 0.001 to 0.003; 2.5% of the weights were trained",
        }
    ]


def test_what_strategies_cost_is_told_the_longest_first() -> None:
    assert choices.costs({"knn": 0.26, "random_forest": 1234.0, "majority": 0.1}) == [
        ("random forest", "1,234.0 s"),
        ("k-nearest-neighbour vote", "0.3 s"),
    ]


def test_the_largest_change_is_shown() -> None:
    (line,) = choices.section(made({"change_at_start": [3e-7, 2e-6]}, "net2net"), "mae")
    assert line["text"] == "largest relative change of a feature before training 2e-06"


def test_what_combined_encoders_count_for_is_told_by_their_names() -> None:
    names = ["mae", "byol 12ab34cd"]
    (line,) = choices.section(made({"weight 0": [0.6, 0.8], "weight 1": [0.4, 0.2]}, "weighted_encoders"), "mae", names)
    assert line["text"] == "70.0% of the weight on mae; 30.0% of the weight on byol 12ab34cd"
    facts = {"features": [16, 64], "from 0": [10, 40], "from 1": [6, 24]}
    (line,) = choices.section(made(facts, "select_features"), "mae", names)
    assert line["text"] == "16 to 64 features; 10 to 40 from mae; 6 to 24 from byol 12ab34cd"
    (line,) = choices.section(made({"encoder": [0, 1, 1, 1]}, "best_encoder"), "mae", names)
    assert line["text"] == "mae in 25.0% of the fits; byol 12ab34cd in 75.0% of the fits"


def test_what_targets_count_for_is_told() -> None:
    facts = {"targets": [2, 2], "weight classification": [0.5, 0.7], "weight multi_label": [1.4, 1.6]}
    (line,) = choices.section(made(facts, "multi_task"), "mae", ["mae"])
    assert line["text"] == "2 kinds of targets; classification counts for 0.6; multi label counts for 1.5"


def test_other_encoders_are_left_out_and_training_from_scratch_is_not() -> None:
    assert choices.section(made({"k": [5]}, "knn", "random_init"), "mae") == []
    (line,) = choices.section(made({"learning_rate": [0.01]}, "from_scratch", "from_scratch"), "mae")
    assert line["strategy"] == "training from scratch"


def test_rules_are_those_of_the_encoder_with_most_labels() -> None:
    rows = [
        {**CELL, "strategy": "surrogate", "method": method, "label_fraction": fraction, "seed": seed, "text": text}
        for method, fraction, seed, text in (
            ("mae", 0.1, 0, "few"), ("mae", 1.0, 0, "most"), ("mae", 1.0, 1, "other"), ("raw_input", 1.0, 0, "raw"),
        )
    ]  # fmt: skip
    transfer: Any = Tables(rules=rows)
    (found,) = choices.rules(transfer, "mae")
    assert found["text"] == "most"
    assert found["title"].startswith("Rules of a decision tree")
    assert choices.rules(made({}), "mae") == []


def test_the_table_calls_nothing_better_than_a_baseline_that_had_not_converged() -> None:
    low = {f"{prefix}{name}": 0.1 for prefix in ("", "scratch_") for name in ("difference", "low", "high")}
    line = {**CELL, **low, "strategy": "fine_tune", "num_labels": 13, "pretrained": 0.8, "metric": "accuracy"}
    line |= {"from_scratch": 0.7, "random_init": 0.7, "num_seeds": 5}
    (found,) = sections.transfer_table([line], {"0.1": 1.0})
    assert (found["random_init"], found["random_judgement"], found["scratch_judgement"]) == ("", "", "better")
    (found,) = sections.transfer_table([line], {"0.1": 0.9})
    assert found["scratch_judgement"] == "undecided"
    (found,) = sections.transfer_table([{**line, "strategy": "knn"}], {})
    assert (found["random_init"], found["random_judgement"]) == ("70.0%", "better")
    (found,) = sections.transfer_table([{**line, "raw_input": 0.6, "raw_num_seeds": 4}], {})
    assert (found["seeds"], found["raw_input"], found["from_scratch"]) == (5, "60.0% (4 seeds)", "70.0%")
