"""What a recipe's task needs of the data is asked as soon as the data is read."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.preflight.labels import require_labels, require_test_labels
from ssl_tasks.errors import RequestError


def recipe(task: str) -> Any:
    return SimpleNamespace(transfer=SimpleNamespace(strategies=("knn",), task=task))


def artifact(**measured: Any) -> Any:
    return SimpleNamespace(measured=measured)


@pytest.mark.parametrize(
    ("task", "measured", "message"),
    [
        ("regression", {"labelled": 0}, r"transfer\.task: regression needs numbers.*ingest\.number_column"),
        ("multi_label", {"labelled": 5}, r"transfer\.task: multi_label needs lists.*ingest\.labels_column"),
        ("classification", {"labelled": 0, "numbered": 3}, r"set transfer\.task=regression"),
        ("retrieval", {"labelled": 0, "multi_labelled": 3}, r"set transfer\.task=multi_label"),
        ("classification", {"labelled": 0, "numbered": 0}, r"the data at ingest\.path has no labels"),
    ],
)
def test_data_without_the_targets_of_its_task_is_refused(task: str, measured: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        require_labels(recipe(task), artifact(**measured))


@pytest.mark.parametrize(
    ("task", "measured"),
    [
        ("regression", {"labelled": 0, "numbered": 3}),
        ("regression", {"labelled": 3}),  # labels may be numbers; what they are is asked where they are read
        ("multi_label", {"labelled": 0, "multi_labelled": 2}),
        ("classification", {"labelled": 2}),
        ("retrieval", {"labelled": 2}),
    ],
)
def test_data_with_them_is_not(task: str, measured: dict[str, Any]) -> None:
    require_labels(recipe(task), artifact(**measured))


def test_counts_of_labels_say_nothing_of_numbers() -> None:
    without = artifact(labelled={"test": 0})
    require_test_labels(recipe("regression"), without)
    with pytest.raises(RequestError, match="need test rows with labels"):
        require_test_labels(recipe("retrieval"), without)
