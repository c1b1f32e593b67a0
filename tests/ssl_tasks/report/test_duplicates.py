from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import commit, planted
from tests_stored import normalized, shown

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.duplicates import section
from ssl_tasks.report.pictures import Pictures
from ssl_tasks.schema import DUPLICATES, QUARANTINE
from ssl_tasks.store import Output, Store

Given = Sequence[tuple[int, int, str, float]]


@pytest.fixture
def planting(tmp_path: Path) -> dict[str, Artifact]:
    return planted(Store.open(str(tmp_path / "planted")))


def inputs(
    tmp_path: Path, made: dict[str, Artifact], pairs: Given, quarantined: Sequence[dict[str, Any]] = ()
) -> dict[str, Artifact]:
    """Artifacts with these pairs and quarantine (row, stage, reason)."""
    store = Store.open(str(tmp_path / "cleaned"))
    table = pa.Table.from_pylist([dict(zip(DUPLICATES.names, pair, strict=True)) for pair in pairs], DUPLICATES)
    rows = [{"sample_id": "s", "source": "x", "severity": "rejected", **row} for row in quarantined]

    def write(out: Output) -> None:
        if out.stage == "clean":
            out.table("duplicates.parquet", table)
        here = [row for row in rows if row["stage"] == out.stage]
        out.table("quarantine.parquet", pa.Table.from_pylist(here, QUARANTINE))

    return {"ingest": made["ingest"], **{name: commit(store, name, write, 300) for name in ("clean", "assign")}}


def named(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [tuple(side["source"] for side in pair["sides"]) for pair in found]


def test_what_is_in_quarantine_stands_first_then_the_least_alike(tmp_path: Path, planting) -> None:
    pairs = [
        *((9, 8, "equal", 1.0), (20, 21, "near", 0.999), (30, 31, "near", 0.91), (40, 41, "near", 0.95)),
        *((50, 51, "near", 0.97), (60, 61, "near", 0.98)),
    ]
    bad = [
        {"row": 21, "stage": "assign", "reason": "duplicate_of_test"},
        {"row": 50, "stage": "clean", "reason": "conflicting_label"},
        {"row": 9, "stage": "clean", "reason": "outlier"},
    ]
    found = section(inputs(tmp_path, planting, pairs, bad), np.arange(300), None)
    assert named(found) == [(f"s{a}", f"s{b}") for a, b in ((50, 51), (20, 21), (30, 31), (40, 41), (60, 61), (9, 8))]
    assert [pair["kind"] for pair in found[:3]] == ["0.97 alike", "0.99 alike", "0.91 alike"]
    assert found[5]["kind"] == "equal"
    assert [pair["reason"] for pair in found[:3]] == ["conflicting label", "duplicate of test", ""]


def test_a_row_is_shown_once_and_pairs_are_few(tmp_path: Path, planting) -> None:
    pairs = [(row, 0, "equal", 1.0) for row in range(1, 30)]
    assert named(section(inputs(tmp_path, planting, pairs), np.arange(300), None)) == [("s1", "s0")]
    many = [(row, row + 1, "near", 0.95) for row in range(0, 100, 2)]
    assert len(section(inputs(tmp_path / "many", planting, many), np.arange(300), None)) == 6


def test_pictures_come_from_the_payload_or_from_quarantine(tmp_path: Path, planting) -> None:
    payload = np.repeat(np.arange(3) * 100, 16).reshape(3, 4, 4, 1).astype(np.uint8)
    store = Store.open(str(tmp_path / "pictures"))
    pictures = Pictures.of(normalized(store, payload))
    bad = [{"row": 5, "stage": "assign", "reason": "duplicate_of_test", "thumbnail": b"a jpeg"}]
    found = section(inputs(tmp_path, planting, [(5, 7, "near", 0.95)], bad), np.array([2, 7, 9]), pictures)
    left, right = found[0]["sides"]
    assert left["image"] == "data:image/jpeg;base64,YSBqcGVn"
    assert float(shown(right["image"]).mean()) == pytest.approx(100, abs=1)


def test_without_pairs_there_is_nothing(tmp_path: Path, planting) -> None:
    assert section(inputs(tmp_path, planting, []), np.arange(300), None) == []
    assert section(planting, np.arange(300), None) == []
