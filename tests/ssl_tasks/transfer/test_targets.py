"""Targets that are no single class: numbers and several labels, as they are loaded and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import commit, split_table

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import ROWS, align
from ssl_tasks.store import Store
from ssl_tasks.transfer import data
from ssl_tasks.transfer.budgets import Budget, draw, limit, num_labelled

SPLITS = ["train"] * 4 + ["val", "test", "test"]


def split_of(store: Store, splits: Sequence[str] = SPLITS, **targets: Any) -> Artifact:
    """A split artifact whose ingest has twice the rows, these targets at the even ones; `labels` may be one a row."""
    count = len(splits)
    one = targets.pop("labels") if all(not isinstance(value, list) for value in targets.get("labels", [[]])) else None
    table = split_table(one or [None] * count, splits)
    table = table.set_column(0, "row", pa.array(np.arange(count) * 2))
    columns: dict[str, Any] = {"row": np.arange(2 * count)}
    columns |= {name: ["s"] * (2 * count) for name in ("sample_id", "content_id", "source")}
    for name, values in targets.items():
        other = {"number": 99.0, "labels": ["other"]}[name]
        spread = [value for pair in ((value, other) for value in values) for value in pair]
        columns[name] = pa.array(spread, ROWS.field(name).type)
    rows = align(pa.table(columns), ROWS)
    ingest = commit(store, "ingest", lambda out: out.table("rows.parquet", rows), count)
    return commit(store, "split", lambda out: out.table("splits.parquet", table), count, [ingest])


def test_numbers_are_those_of_the_rows(store: Store) -> None:
    numbers = [0.5, None, -1.0, 2.0, 3.0, None, 7.0]
    found = data.load(split_of(store, number=numbers), task="regression")
    np.testing.assert_array_equal(found.labels, [0.5, np.nan, -1.0, 2.0, 3.0, np.nan, 7.0])
    assert (found.train.tolist(), found.val.tolist(), found.test.tolist()) == ([0, 1, 2, 3], [4], [6])
    assert (found.classes, found.num_outputs, found.num_groups) == ([], 1, 1)


def test_labels_that_are_all_numbers_do_where_there_is_no_column_of_them(store: Store) -> None:
    found = data.load(split_of(store, labels=["1", "2.5", None, "-3", "1e2", "0", "4"]), task="regression")
    np.testing.assert_array_equal(found.labels, [1, 2.5, np.nan, -3, 100, 0, 4])


def test_several_labels_are_0_and_1_for_each_class(store: Store) -> None:
    several = [["b", "a"], None, [], ["b"], ["a"], ["c", "a"], ["c"]]
    found = data.load(split_of(store, labels=several), task="multi_label")
    assert found.classes == ["a", "b", "c"]
    rows = [[1, 1, 0], [-1, -1, -1], [0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]]
    assert found.labels.tolist() == rows
    assert (found.val.tolist(), found.test.tolist(), found.num_outputs) == ([4], [5, 6], 3)


@pytest.mark.parametrize("task", ["regression", "multi_label"])
def test_budgets_are_prefixes_of_one_order_of_all_labelled_rows(store: Store, task: str) -> None:
    count = 40
    splits = ["train"] * count + ["test"]
    both: dict[str, dict[str, Any]] = {
        "regression": {"number": [None if n % 4 == 0 else float(n) for n in range(count)] + [1.0]},
        "multi_label": {"labels": [None if n % 4 == 0 else ["a"] * (n < 9) for n in range(count)] + [["a"]]},
    }
    found = data.load(split_of(store, splits, **both[task]), task=task)
    assert num_labelled(found.splits) == 30
    drawn = [draw(found.splits, Budget(fraction=fraction), 1) for fraction in (0.01, 0.1, 0.5, 1.0)]
    assert [len(rows) for rows in drawn] == [1, 3, 15, 30]
    for smaller, larger in itertools.pairwise(drawn):
        assert {*smaller.tolist()} < {*larger.tolist()}
    assert all(number % 4 for number in drawn[-1].tolist())
    assert {*limit(found.splits, drawn[2], 3, 1).tolist()} == {*drawn[1].tolist()}
    assert draw(found.splits, Budget(fraction=0.5), 2).tolist() != drawn[2].tolist()


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("regression", {}, r"regression needs numbers, and no row has one; .*ingest\.number_column"),
        (
            "regression",
            {"labels": ["1", "cat", "2", "3", "4", "5", "6"]},
            r"regression needs numbers, and the labels are classes such as 'cat'",
        ),
        (
            "regression",
            {"labels": ["1", "1_0", "2", "3", "4", "5", "6"]},  # a number to Python alone
            r"regression needs numbers, and the labels are classes such as '1_0'",
        ),
        ("regression", {"number": [1.0, 1.0, None, 1.0, 2.0, 3.0, 4.0]}, "the train rows have one number only"),
        ("regression", {"number": [None] * 4 + [1.0] * 3}, "the train rows have no numbers"),
        ("regression", {"number": [1.0, 2.0, 3.0, 4.0, 5.0, None, None]}, "no test row has a number"),
        ("multi_label", {}, r"no row has a list of them; .*ingest\.labels_column"),
        ("multi_label", {"labels": list("abcdefg")}, "one label each, which is transfer.task=classification"),
        ("multi_label", {"labels": [[], None, [], [], ["a"], ["a"], ["a"]]}, "no labelled train row has a class"),
        ("multi_label", {"labels": [["a"], ["a"], [], [], ["a"], None, None]}, "no test row is labelled"),
        (
            "multi_label",
            {"labels": [["a"], ["b"], ["a"], [], ["a"], ["c"], []]},
            r"2 classes \('b', 'c'\) have one row only",
        ),
        ("classification", {"labels": ["0.5", "1", "2", "3", "0.5", "1", "2"]}, "set transfer.task=regression"),
    ],
)
def test_targets_that_do_not_work_are_refused(store: Store, task: str, values: dict[str, Any], message: str) -> None:
    split = split_of(store, **values)
    for refuse in (data.load, data.check):
        with pytest.raises(RequestError, match=message):
            refuse(split, task=task)
