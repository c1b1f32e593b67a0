import pyarrow as pa
import pytest
from tests_planted import commit

from ssl_tasks.report.predictions import load
from ssl_tasks.store import Store
from ssl_tasks.transfer.tables import PREDICTIONS

LINES = [
    {"strategy": name, "label_fraction": fraction, "num_labels": int(100 * fraction)}
    for name in ("linear_probe", "knn")
    for fraction in (0.1, 0.5, 1.0)
]


@pytest.fixture
def transfer(store: Store):
    rows = [
        {
            "strategy": name,
            "method": method,
            "label_fraction": fraction,
            "labels_per_class": per_class,
            "seed": seed,
            "row": 3,
            "group_id": "g",
            "label": "dog",
            "predicted": "ant" if fraction == 1.0 else "dog",
            "confidence": fraction,
            "likelihood": 0.5,
        }
        for name in ("linear_probe", "knn")
        for method in ("simclr", "random_init", "from_scratch")
        for fraction, per_class in ((0.1, 0), (0.1, 5), (0.5, 0), (1.0, 0))
        for seed in (0, 1)
    ]
    predictions = pa.Table.from_pylist(rows, schema=PREDICTIONS)
    return commit(store, "transfer", lambda out: out.table("predictions.parquet", predictions), 1)


def test_the_smallest_and_the_largest_budget_of_one_strategy_are_read(transfer) -> None:
    small, large = load(transfer, LINES, "linear_probe", "simclr")
    assert (small.budget, large.budget) == ("10% of the labels (10)", "all labels (100)")
    assert small.classes == large.classes == ["ant", "dog"]
    assert small.rows.tolist() == [3, 3]
    assert small.num_seeds == 2
    assert small.confidence.tolist() == [0.1, 0.1]
    assert large.truth.tolist() == [1, 1]
    assert large.predicted.tolist() == [0, 0]
    assert not large.right.any()
    assert small.right.all()


def test_one_budget_is_read_once(transfer) -> None:
    assert len(load(transfer, LINES[:1], "linear_probe", "simclr")) == 1


def test_a_fraction_is_told_from_as_many_labels_a_class(transfer) -> None:
    per_class = {**LINES[0], "labels_per_class": 5}
    (only,) = load(transfer, [per_class], "linear_probe", "simclr")
    assert only.budget == "5 labels a class (10)"
    assert only.rows.tolist() == [3, 3]
