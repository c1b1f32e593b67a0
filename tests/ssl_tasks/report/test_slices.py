from pathlib import Path

import numpy as np
import pytest
from tests_fits import fits
from tests_planted import commit, split_table

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.slices import section, slices, wilson
from ssl_tasks.store import Store


@pytest.mark.parametrize(
    ("share", "number", "interval"),
    [
        (0.8, 10, (0.4902, 0.9433)),  # by hand: (0.8 + 0.19207) / 1.38415 -+ 1.96 / 1.38415 * sqrt(0.016 + 0.0096)
        (0.0, 20, (0.0, 0.1611)),
        (1.0, 20, (0.8389, 1.0)),
        (0.5, 1000, (0.4691, 0.5309)),
    ],
)
def test_the_interval_is_wilsons(share: float, number: int, interval: tuple[float, float]) -> None:
    assert wilson(share, number) == pytest.approx(interval, abs=1e-4)


def test_rows_are_counted_once_and_accuracy_is_the_mean_over_seeds() -> None:
    found = slices([fits([0, 0, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0], seeds=2)], [np.array([0, 0, 1] * 2)], ["cat", "dog"])
    assert [(one.name, one.rows, one.accuracy) for one in found] == [("dog", 1, [0.5]), ("cat", 2, [0.75])]


def table(store: Store, domains: list[str | None], groups: list[str]) -> Artifact:
    rows = split_table(["cat"] * len(groups), ["test"] * len(groups), groups)
    place = rows.schema.get_field_index("domain")
    rows = rows.set_column(place, rows.schema.field("domain"), [domains])
    return commit(store, "split", lambda out: out.table("splits.parquet", rows), len(groups))


def test_domains_and_large_groups_are_told_apart(store: Store) -> None:
    domains = ["night"] * 10 + ["<b>"] * 11 + [None]
    groups = ["g0"] * 10 + ["g1"] * 11 + ["small"]
    right = [0] * 5 + [1] * 5 + [0] * 11 + [1]
    tables = section([fits([0] * 22, right)], table(store, domains, groups))
    assert [line["name"] for line in tables["domains"]] == ["night", "<b>"]
    assert [line["rows"] for line in tables["domains"]] == ["10", "11"]
    assert [line["name"] for line in tables["groups"]] == ["g0", "g1"]
    assert tables["domains"][0]["cells"] == ["50.0% (23.7 to 76.3)"]
    assert tables["classes"][0]["cells"] == ["72.7% (51.8 to 86.8)"]
    assert tables["classes"][0]["precision"] == "100.0%"


def test_one_domain_is_no_table(store: Store) -> None:
    tables = section([fits([0, 1], [0, 1])], table(store, ["night", "night"], ["g0", "g1"]))
    assert tables["domains"] == tables["groups"] == []


def test_a_domain_of_train_rows_alone_does_not_count(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "other"))
    tables = section([fits([0, 1], [0, 1])], table(store, ["night", "night", "day"], ["g0", "g1", "g2"]))
    assert tables["domains"] == []
