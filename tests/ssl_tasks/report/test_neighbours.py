from pathlib import Path

import numpy as np
import pytest
from tests_planted import planted, split_table
from tests_stored import normalized, shown

from ssl_tasks.report import neighbours
from ssl_tasks.report.neighbours import chosen, nearest, section
from ssl_tasks.report.pictures import Pictures
from ssl_tasks.store import Store


def test_the_nearest_are_those_of_a_loop() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(50, 4)).astype(np.float32)
    train = np.flatnonzero(np.arange(50) % 3)
    queries = values[[0, 3, 6]].astype(np.float64)
    parts = [(first, values[first : first + 7]) for first in range(0, 50, 7)]
    best, cosines = nearest(queries, train, parts, 5)
    for query, found, alike in zip(queries, best, cosines, strict=True):
        every = {
            int(row): float(values[row] @ query) / float(np.linalg.norm(values[row]) * np.linalg.norm(query))
            for row in train
        }
        expected = sorted(every, key=lambda row: -every[row])[:5]
        assert found.tolist() == expected
        assert alike == pytest.approx([every[row] for row in expected], abs=1e-6)


def test_few_train_rows_and_embeddings_of_length_0() -> None:
    values = np.array([[1, 0], [0, 0], [2, 1]], np.float32)
    best, cosines = nearest(values[:1].astype(np.float64), np.array([1, 2]), [(0, values)], 5)
    assert best.tolist() == [[2, 1]]
    assert cosines[0] == pytest.approx([2 / 5**0.5, 0])


def test_each_class_has_its_turn() -> None:
    splits = split_table(["a"] * 30 + ["b", None] * 10, ["test"] * 50)
    found = chosen(splits)
    labels = splits["label"].take(found).to_pylist()
    assert len(found) == 8
    assert set(labels[:3]) == {"a", "b", None}
    assert set(labels[3:6]) == {"a", "b", None}
    assert len(chosen(split_table(["a"] * 4, ["train"] * 4))) == 0


def test_neighbours_of_another_class_are_marked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "NEAREST", 3)
    made = planted(store)
    splits = made["split"].table("splits.parquet")
    found = section(splits, made["split"], made["embed"], None)
    label = dict(zip(splits["sample_id"].to_pylist(), splits["label"].to_pylist(), strict=True))
    of_split = dict(zip(splits["sample_id"].to_pylist(), splits["split"].to_pylist(), strict=True))
    assert len(found["strips"]) == 8
    for strip in found["strips"]:
        assert of_split[strip["query"]["id"]] == "test"
        assert len(strip["found"]) == 3
        for card in strip["found"]:
            assert of_split[card["id"]] == "train"
            assert card["wrong"] == (label[card["id"]] != label[strip["query"]["id"]])
    wrong = sum(card["wrong"] for strip in found["strips"] for card in strip["found"])
    assert (found["right"], found["judged"]) == (24 - wrong, 24)


def test_pictures_are_those_of_the_rows(tmp_path: Path) -> None:
    made = planted(Store.open(str(tmp_path / "planted")))
    payload = np.repeat(np.arange(300) // 2, 48).reshape(300, 4, 4, 3).astype(np.uint8)
    pictures = Pictures.of(normalized(Store.open(str(tmp_path / "pictures")), payload))
    for strip in section(made["split"].table("splits.parquet"), made["split"], made["embed"], pictures)["strips"]:
        for card in (strip["query"], *strip["found"]):
            assert float(shown(card["image"]).mean()) == pytest.approx(int(card["id"][1:]) // 2, abs=1)


def test_without_labels_nothing_is_wrong(store: Store) -> None:
    made = planted(store, labels=None)
    found = section(made["split"].table("splits.parquet"), made["split"], made["embed"], None)
    assert found["judged"] == 0
    assert all(card["wrong"] is None for strip in found["strips"] for card in strip["found"])
