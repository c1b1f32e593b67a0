from __future__ import annotations

import pytest
from tests_planted import split_table

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.data import check_labels

SPLITS = ["train", "val", "test"]


@pytest.mark.parametrize(
    ("labels", "splits", "per_class", "message"),
    [
        ([None] * 3, SPLITS, [], "the train rows have no labels"),
        (["a", "b", "b"], SPLITS, [], "labels of one class only"),
        (["a", "b", None], ["train", "train", "test"], [], "no test row has a label"),
        (
            ["a", "b", "c", "c", "b"],
            ["train", "train", "train", "test", "test"],
            [],
            "class 'a' has one label only, which cannot stand in train and in test",
        ),
        (
            list("abccdefgh"),
            ["train", "train", "train", "test", "test"] + ["train"] * 4,
            [],
            r"7 classes \('a', 'b', 'd', 'e', 'f', \.\.\.\) have one label only",
        ),
        (["0.5", "1", "2.25"], SPLITS, [], "the labels are numbers with fractions, such as '0.5'"),
        (
            ["a", "b", "a", "b", "b"],
            ["train", "train", "test", "test", "train"],
            [1, 2],
            "transfer.labels_per_class: 2 is larger than the 1 train rows with a label of class 'a'",
        ),
        (
            ["a", "b", "c", "c"] * 2,
            ["train", "train", "test", "val", "test", "test", "test", "val"],
            [1],
            "1 is larger than the 0 train rows with a label of class 'c'",
        ),
    ],
)
def test_labels_that_do_not_work_are_refused(labels, splits, per_class, message) -> None:
    with pytest.raises(RequestError, match=message):
        check_labels(split_table(labels, splits), per_class)


@pytest.mark.parametrize(
    "labels", [["a", "b", "a", "b"], ["0", "1", "0", "1"], ["1.0", "2.0"] * 2, ["v0.5", "1.5"] * 2]
)
def test_labels_that_work_are_not(labels: list[str]) -> None:
    check_labels(split_table(labels, ["train", "train", "test", "test"]), [1])
