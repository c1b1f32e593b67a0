"""The transfer stage where rows have a class and a number, and multi-task learning learns both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests_encoders import ROWS, Made, informative, ingested, line, split, transfer

from flows.preflight.labels import require_targets
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store
from ssl_tasks.transfer import joint
from ssl_tasks.transfer.data import load

SETTINGS: dict[str, Any] = {"strategies": ["multi_task"], "label_fractions": [1.0], "seeds": 1}


@pytest.fixture
def made(store: Store) -> Made:
    return informative(store)


def with_targets(made: Made, name: str, **columns: Any) -> Made:
    """The same rows, with further targets in ingest."""
    table = made["split"].table("splits.parquet")
    changed = {**made, "ingest": ingested(made, columns, name)}
    return {**made, "split": split(changed, table["label"].to_pylist(), table["split"].to_pylist(), name)}


def numbers() -> list[float]:
    return np.random.default_rng(3).normal(size=ROWS).tolist()


def test_class_and_number_are_learnt_together_against_fine_tuning(made: Made) -> None:
    found = transfer(with_targets(made, "numbers", number=numbers()), [], **SETTINGS)
    entry = line(found, "multi_task")
    assert entry["counterpart"] == "fine_tune"
    assert entry["counterpart_value"] == line(found, "fine_tune")["pretrained"]
    assert entry["pretrained"] > 0.5
    chosen = {
        row["name"]: row["value"]
        for row in found.table("choices.parquet").to_pylist()
        if (row["strategy"], row["method"]) == ("multi_task", "scarf")
    }
    assert chosen["targets"] == 2
    assert chosen["weight regression"] != chosen["weight classification"]
    assert set(found.table("metrics.parquet")["method"].to_pylist()) == {
        *("scarf", "random_init", "from_scratch", "majority"),
    }


def test_targets_of_test_rows_change_nothing_that_is_fitted(made: Made) -> None:
    given = numbers()
    is_test = [name == "test" for name in made["split"].table("splits.parquet")["split"].to_pylist()]
    other = [1e6 if test else number for test, number in zip(is_test, given, strict=True)]
    first = transfer(with_targets(made, "first", number=given), [], **SETTINGS)
    second = transfer(with_targets(made, "second", number=other), [], **SETTINGS)
    assert first.table("predictions.parquet").equals(second.table("predictions.parquet"))
    assert first.table("choices.parquet").equals(second.table("choices.parquet"))


def test_all_kinds_that_rows_have_are_loaded(made: Made) -> None:
    lists = [["red", "blue"] if row % 2 else (["red"] if row % 3 else None) for row in range(ROWS)]
    given: list[float | None] = [*numbers()[:-1], None]
    changed = with_targets(made, "all", number=given, labels=lists)
    data = load(changed["split"])
    found = joint.load(changed["split"], data)
    assert list(found) == ["classification", "multi_label", "regression"]
    assert np.array_equal(found["classification"], data.labels)
    assert found["multi_label"][:4].tolist() == [[-1, -1], [1, 1], [0, 1], [1, 1]]
    assert found["regression"][:-1] == pytest.approx(given[:-1])
    assert np.isnan(found["regression"][-1])


def test_empty_lists_of_classes_are_no_target(made: Made) -> None:
    changed = with_targets(made, "empty", number=numbers(), labels=[[] for _ in range(ROWS)])
    data = load(changed["split"])
    found = joint.load(changed["split"], data)
    assert list(found) == ["classification", "regression"]
    joint.check(found, data)


def test_rows_with_classes_alone_are_refused_by_key(made: Made) -> None:
    with pytest.raises(RequestError, match=r"transfer\.strategies: multi_task .* have a class only; name others with"):
        transfer(made, [], **SETTINGS)


def test_it_is_refused_once_rows_are_split_before_anything_is_trained(made: Made) -> None:
    recipe: Any = SimpleNamespace(transfer=SimpleNamespace(strategies=("multi_task",)))
    with pytest.raises(RequestError, match=r"transfer\.strategies: multi_task"):
        require_targets(recipe, made["split"])
    require_targets(recipe, with_targets(made, "more", number=numbers())["split"])
    require_targets(SimpleNamespace(transfer=SimpleNamespace(strategies=("knn",))), made["split"])  # type: ignore[arg-type]
