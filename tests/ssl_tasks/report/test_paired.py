"""Two encoders on the rows that both were tested on, against numbers worked out by hand and a bootstrap in a loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import commit, split_table

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.paired import Fitted, Matched, changes, compare, load, match
from ssl_tasks.store import Store
from ssl_tasks.transfer.bootstrap import group_weights, seed_weights
from ssl_tasks.transfer.tables import PREDICTIONS


def split(
    folder: Path, samples: str, labels: Sequence[str | None], splits: Sequence[str], groups: Sequence[str] | None = None
) -> Artifact:
    table = split_table(labels, splits, groups)
    table = table.set_column(1, table.schema.field(1), pa.array(list(samples)))
    return commit(Store.open(str(folder)), "split", lambda out: out.table("splits.parquet", table), len(labels))


def test_rows_match_by_sample_and_not_by_number(tmp_path: Path) -> None:
    old = split(tmp_path / "old", "abcdef", ["x", "y", None, "x", "y", "x"], ["test"] * 5 + ["train"])
    new = split(tmp_path / "new", "fedcba", ["x", "x", "x", "y", "y", "x"], ["test"] * 6)
    found = match(old, new)
    # f is train in old, c has no label there, e and d: e is y in old and x in new, d is x in both
    assert found.new_rows.tolist() == [2, 4, 5]
    assert found.old_rows.tolist() == [3, 1, 0]
    assert found.labels == ["x", "y", "x"]
    assert (found.num_old, found.num_new, found.relabelled, found.same) == (4, 6, 1, False)


def test_the_same_split_is_the_same(tmp_path: Path) -> None:
    one = split(tmp_path, "abcd", ["x", "y", None, "x"], ["test", "test", "test", "train"])
    found = match(one, one)
    assert found.same
    assert found.labels == ["x", "y"]


def test_nothing_in_common_is_no_error(tmp_path: Path) -> None:
    old = split(tmp_path / "old", "ab", ["x", "y"], ["test"] * 2)
    new = split(tmp_path / "new", "cd", ["x", "y"], ["test"] * 2)
    found = match(old, new)
    assert (len(found.labels), found.num_groups, found.same) == (0, 0, False)
    assert compare(found, {}, {}, metric="accuracy", resamples=100, seed=0) == []


def test_rows_that_either_run_joins_are_one_group(tmp_path: Path) -> None:
    labels, tests = ["x"] * 5, ["test"] * 5
    old = split(tmp_path / "old", "abcde", labels, tests, ["p", "p", "q", "r", "s"])
    new = split(tmp_path / "new", "abcde", labels, tests, ["1", "2", "2", "3", "4"])
    found = match(old, new)  # a-b by old, b-c by new
    assert found.num_groups == 3
    assert len(set(found.groups[:3])) == 1
    assert len(set(found.groups[2:])) == 3


def predictions(folder: Path, fits: dict[tuple[str, str, float, int], tuple[list[int], str, list[float]]]) -> Artifact:
    tables = []
    for (strategy, method, fraction, seed), (rows, predicted, likelihood) in fits.items():
        keys = {
            "strategy": strategy,
            "method": method,
            "label_fraction": fraction,
            "seed": seed,
            "group_id": "g",
            "labels_per_class": 0,
        }
        lines = [
            {**keys, "row": row, "label": "x", "predicted": name, "confidence": 0.5, "likelihood": value}
            for row, name, value in zip(rows, predicted, likelihood, strict=True)
        ]
        tables.append(pa.Table.from_pylist(lines, schema=PREDICTIONS))
    table, store = pa.concat_tables(tables), Store.open(str(folder))
    return commit(store, "transfer", lambda out: out.table("predictions.parquet", table), 1, measured={"method": "m"})


def test_fits_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    made = predictions(
        tmp_path,
        {
            ("knn", "m", 0.1, 0): ([5, 7, 9], "xyx", [0.1, 0.2, 0.3]),
            ("knn", "random_init", 0.1, 0): ([5, 7, 9], "zzz", [0.0] * 3),
            ("knn", "m", 0.1, 1): ([9, 7, 5], "yyz", [0.4, 0.5, 0.6]),
        },
    )
    found = load(made, np.array([9, 5]))
    assert list(found) == [("knn", 0.1)]
    first, second = found["knn", 0.1][0], found["knn", 0.1][1]
    assert (first.predicted, first.likelihood.tolist()) == (["x", "x"], [0.3, 0.1])
    assert (second.predicted, second.likelihood.tolist()) == (["y", "z"], [0.4, 0.6])


LABELS = list("xxyyz")
MATCHED = Matched(np.arange(5), np.arange(5), LABELS, np.array([0, 0, 1, 2, 3]), 5, 5, 0)


def fits(*predicted: str) -> dict[int, Fitted]:
    return {seed: Fitted(list(names), np.full(5, 0.5), np.full(5, 0.5)) for seed, names in enumerate(predicted)}


def test_differences_are_those_of_a_bootstrap_written_as_a_loop() -> None:
    old, new = ["xyyxz", "yyyyz"], ["xxyyz", "xxyyx"]
    (line,) = compare(
        MATCHED, {("knn", 0.1): fits(*old)}, {("knn", 0.1): fits(*new)}, metric="accuracy", resamples=300, seed=4
    )
    # right of five: 3 and 3 before, 5 and 4 after
    assert (line.old, line.new, line.difference) == (0.6, 0.9, pytest.approx(0.3))
    weights = np.concatenate(list(group_weights(MATCHED.groups, 300, 4)), axis=1)
    shares = seed_weights(2, 300, 4)
    means = []
    for b in range(300):
        drawn = 0.0
        for seed in range(2):
            gained = sum(
                weights[row, b] * ((new[seed][row] == LABELS[row]) - (old[seed][row] == LABELS[row]))
                for row in range(5)
            )
            drawn += shares[b, seed] * gained / weights[:, b].sum()
        means.append(drawn)
    assert (line.low, line.high) == (pytest.approx(np.quantile(means, 0.025)), pytest.approx(np.quantile(means, 0.975)))
    assert line.low < 0.3 < line.high


def test_equal_predictions_differ_by_nothing() -> None:
    same = {("knn", 0.1): fits("xyyxz", "yyyyz")}
    (line,) = compare(MATCHED, same, same, metric="macro_f1", resamples=100, seed=0)
    assert (line.difference, line.low, line.high) == (0, 0, 0)


def test_only_seeds_and_budgets_in_common_are_compared() -> None:
    old = {("knn", 0.1): {1: fits("xxxxx")[0], 5: fits("xxyyz")[0]}, ("knn", 1.0): fits("xxyyz")}
    new = {("knn", 0.1): {1: fits("xxyyz")[0], 2: fits("zzzzz")[0]}, ("linear_probe", 1.0): fits("xxyyz")}
    (line,) = compare(MATCHED, old, new, metric="accuracy", resamples=100, seed=0)
    assert (line.strategy, line.label_fraction, line.num_seeds) == ("knn", 0.1, 1)
    assert (line.old, line.new) == (0.4, 1.0)


def test_balanced_accuracy_weighs_classes_alike() -> None:
    old, new = {("knn", 0.1): fits("xxyyx")}, {("knn", 0.1): fits("xyyyz")}
    (line,) = compare(MATCHED, old, new, metric="balanced_accuracy", resamples=100, seed=0)
    assert line.old == pytest.approx((1 + 1 + 0) / 3)
    assert line.new == pytest.approx((0.5 + 1 + 1) / 3)


def test_what_changed_is_counted() -> None:
    found = changes(MATCHED, fits("xyyxz", "yyyyz"), fits("xxyyz", "xxyyx"), 3)
    # became right: rows 1 and 3 under seed 0, rows 0 and 1 under seed 1; became wrong: row 4 under seed 1
    assert (found["fixed"], found["broken"]) == (2.0, 0.5)
    # of x (4 predictions): right 1 then 4, called y 3 then 0; of z (2): right 2 then 1, called x 0 then 1
    assert found["pairs"] == [("x", "x", 0.25, 1.0), ("x", "y", 0.75, 0.0), ("z", "x", 0.0, 0.5)]
