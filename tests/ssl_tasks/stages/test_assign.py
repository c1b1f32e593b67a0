"""Given splits that leak, folds, and what an earlier run decided."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store


def lines(numbers: range, part: str = "") -> list[str]:
    return [f"{number}.5,{number % 7},p{number},{part},{'ab'[number % 2]}" for number in numbers]


def recipe(folder: Path, rows: list[str], **split: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "data.csv").write_text("\n".join(["x,y,who,part,kind", *rows]) + "\n")
    ingest = {"path": str(folder / "data.csv"), "modality": "tabular", "label_column": "kind", "drop_columns": ["who"]}
    return {"ingest": {**ingest, "split_column": "part"}, "split": split}


def splits(made: dict[str, Artifact]) -> dict[str, str]:
    """Split by the row's content."""
    contents = made["ingest"].table("rows.parquet")["content_id"].to_pylist()
    rows = made["split"].table("splits.parquet").to_pylist()
    return {contents[row["row"]]: row["split"] for row in rows}


def test_what_the_given_split_leaks_is_told_and_taken_out(store: Store, tmp_path: Path, chain: Any) -> None:
    rows = [*lines(range(20), "train"), *lines(range(20, 30), "test")]
    rows += [row.replace(",test,", ",train,") for row in rows[20:23]]  # three test rows again, in train
    made = chain(store, recipe(tmp_path / "a", rows), until="split")
    assert made["split"].measured["leaked_as_given"] == 3
    assert made["split"].measured["leaked_test_rows"] == 0
    assert made["split"].measured["splits"] == {"train": 16, "val": 4, "test": 10}
    assert made["assign"].measured["rejected"] == 3


def test_given_splits_can_be_drawn_anew(store: Store, tmp_path: Path, chain: Any) -> None:
    rows = [*lines(range(50), "train"), *lines(range(50, 100), "test")]
    drawn = chain(store, recipe(tmp_path / "a", rows, use_given=False), until="split")["split"].measured
    assert abs(drawn["splits"]["test"] - 15) <= 1
    assert "leaked_as_given" not in drawn


def test_val_is_drawn_from_train_where_the_data_names_none(store: Store, tmp_path: Path, chain: Any) -> None:
    rows = [*lines(range(60), "train"), *lines(range(60, 100), "test")]
    made = chain(store, recipe(tmp_path / "a", rows, fractions=[0.8, 0.2, 0.0]), until="split")
    assert made["split"].measured["splits"] == {"train": 48, "val": 12, "test": 40}
    named = [*rows[:55], *(row.replace(",train,", ",val,") for row in rows[55:60]), *rows[60:]]
    kept = chain(store, recipe(tmp_path / "b", named), until="split")["split"].measured
    assert kept["splits"] == {"train": 55, "val": 5, "test": 40}


def test_every_row_is_a_test_row_of_exactly_one_fold(store: Store, tmp_path: Path, chain: Any) -> None:
    seen: Counter[str] = Counter()
    for fold in range(4):
        made = chain(store, recipe(tmp_path / "a", lines(range(120)), folds=4, fold=fold), until="split")
        found = splits(made)
        assert Counter(found.values()) == {"test": 30, "val": 16, "train": 74}  # val: 0.15 / 0.85 of what is left
        seen.update(content for content, name in found.items() if name == "test")
        labels = made["split"].table("splits.parquet").to_pylist()
        assert Counter(row["label"] for row in labels if row["split"] == "test") == {"a": 15, "b": 15}
    assert len(seen) == 120
    assert set(seen.values()) == {1}


def test_a_grown_data_set_keeps_what_was_decided(store: Store, tmp_path: Path, chain: Any) -> None:
    first = chain(store, recipe(tmp_path / "a", lines(range(60))), until="split")
    before = splits(first)
    grown = [*lines(range(100, 140)), *lines(range(60))]
    again = recipe(tmp_path / "b", grown, earlier=first["split"].fingerprint, seed=5)
    made = chain(store, again, until="split")
    after = splits(made)
    assert {content: after[content] for content in before} == before
    new = Counter(name for content, name in after.items() if content not in before)
    assert new == {"train": 28, "val": 6, "test": 6}  # the shares of the new ones
    assert made["assign"].measured["from_earlier"] == 60
    assert made["assign"].manifest.parents["earlier"] == first["split"].fingerprint
    free = chain(store, recipe(tmp_path / "b", grown, seed=5), until="split")
    assert {content: splits(free)[content] for content in before} != before


def test_a_new_twin_of_an_earlier_test_row_does_not_come_into_train(store: Store, tmp_path: Path, chain: Any) -> None:
    first = chain(store, recipe(tmp_path / "a", lines(range(60))), until="split")
    held_out = [row["row"] for row in first["split"].table("splits.parquet").to_pylist() if row["split"] == "test"]
    twin = lines(range(held_out[0], held_out[0] + 1))
    again = recipe(tmp_path / "b", [*lines(range(60)), *twin], earlier=first["split"].fingerprint)
    table = chain(store, again, until="split")["split"].table("splits.parquet").to_pylist()
    assert {row["row"]: row["split"] for row in table}[60] == "test"


def test_an_earlier_train_row_that_turns_out_to_be_a_test_row_is_taken_out(
    store: Store, tmp_path: Path, chain: Any
) -> None:
    """Two rows that are joined by a third one, which came later: the encoder has seen the train row."""

    def named(rows: list[str], earlier: str | None) -> dict[str, Any]:
        found = recipe(tmp_path / "a", rows, earlier=earlier)
        return {**found, "ingest": {**found["ingest"], "drop_columns": [], "group_column": "who"}}

    first = chain(store, named(lines(range(60)), None), until="split")
    table = first["split"].table("splits.parquet").to_pylist()
    test = next(row["row"] for row in table if row["split"] == "test")
    train = next(row["row"] for row in table if row["split"] == "train")
    rows = [
        row.replace(f",p{test},", f",p{train},") if number == test else row
        for number, row in enumerate(lines(range(60)))
    ]
    made = chain(store, named(rows, first["split"].fingerprint), until="split")
    found = made["assign"].table("quarantine.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in found] == [(train, "duplicate_of_test")]


@pytest.mark.parametrize("reference", ["0" * 64, "ingest"])
def test_an_earlier_split_that_is_none_is_refused(store: Store, tmp_path: Path, chain: Any, reference: str) -> None:
    if reference == "ingest":
        reference = chain(store, recipe(tmp_path / "a", lines(range(60))), until="ingest")["ingest"].fingerprint
    with pytest.raises(RequestError, match=r"split\.earlier"):
        chain(store, recipe(tmp_path / "a", lines(range(60)), earlier=reference), until="split")


def test_a_test_row_that_was_saved_anew_stays_a_test_row(store: Store, tmp_path: Path, chain: Any) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (30, 12, 12, 3), np.uint8)

    def saved(folder: Path, **options: Any) -> dict[str, Any]:
        folder.mkdir()
        for number, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(folder / f"{number:02d}.png", **options)
        return {"ingest": {"path": str(folder), "modality": "image"}, "normalize": {"size": 8}}

    def by_source(made: dict[str, Artifact]) -> dict[str, str]:
        sources = made["ingest"].table("rows.parquet")["source"].to_pylist()
        return {sources[row["row"]]: row["split"] for row in made["split"].table("splits.parquet").to_pylist()}

    first = chain(store, saved(tmp_path / "a"), until="split")
    again = saved(tmp_path / "b", compress_level=1, dpi=(72, 72))
    made = chain(store, {**again, "split": {"earlier": first["split"].fingerprint, "seed": 1}}, until="split")
    assert first["ingest"].table("rows.parquet")["content_id"] != made["ingest"].table("rows.parquet")["content_id"]
    assert by_source(made) == by_source(first)
    assert "warnings" not in made["assign"].measured
    for number in range(30):
        if by_source(first)[f"{number:02d}.png"] == "test":
            (tmp_path / "b" / f"{number:02d}.png").unlink()
    less = chain(store, {**again, "split": {"earlier": first["split"].fingerprint}}, until="split")
    assert "test rows of split.earlier are not in the data any more" in less["assign"].measured["warnings"][0]


def test_an_earlier_split_of_other_data_is_refused(store: Store, tmp_path: Path, chain: Any) -> None:
    first = chain(store, recipe(tmp_path / "a", lines(range(60))), until="split")["split"]
    with pytest.raises(RequestError, match=r"split\.earlier: none of the 60 samples"):
        chain(store, recipe(tmp_path / "b", lines(range(100, 160)), earlier=first.fingerprint), until="split")


def test_earlier_train_rows_do_not_become_val_rows(store: Store, tmp_path: Path, chain: Any) -> None:
    first = chain(store, recipe(tmp_path / "a", lines(range(60)), fractions=[0.8, 0, 0.2]), until="split")
    grown = recipe(tmp_path / "b", lines(range(100)), earlier=first["split"].fingerprint, fractions=[0.7, 0.15, 0.15])
    after = splits(chain(store, grown, until="split"))
    assert {content: after[content] for content in splits(first)} == splits(first)
    assert Counter(after.values())["val"] > 0


def test_small_increments_reach_every_split(store: Store, tmp_path: Path, chain: Any) -> None:
    made = chain(store, recipe(tmp_path / "0", lines(range(40))), until="split")
    for step in range(1, 9):
        rows = lines(range(40 + 3 * step))
        made = chain(store, recipe(tmp_path / str(step), rows, earlier=made["split"].fingerprint), until="split")
    count = Counter(splits(made).values())
    assert sum(count.values()) == 64
    assert abs(count["test"] - 0.15 * 64) <= 1.5
    assert abs(count["val"] - 0.15 * 64) <= 1.5


def test_both_ways_to_name_an_artifact_are_one(store: Store, tmp_path: Path, chain: Any) -> None:
    first = chain(store, recipe(tmp_path / "a", lines(range(60))), until="split")["split"]
    names = [first.fingerprint, f"{store.uri}/objects/{first.fingerprint}", f"{store.uri}/objects/{first.fingerprint}/"]
    made = [chain(store, recipe(tmp_path / "a", lines(range(60)), earlier=name), until="split") for name in names]
    assert len({one["split"].fingerprint for one in made}) == 1
    assert {one["assign"].manifest.parents["earlier"] for one in made} == {first.fingerprint}


def test_a_damaged_earlier_split_is_refused_by_its_key(store: Store, tmp_path: Path, chain: Any) -> None:
    first = chain(store, recipe(tmp_path / "a", lines(range(60))), until="split")["split"]
    Path(first.path("splits.parquet")).unlink()
    with pytest.raises(RequestError, match=r"split\.earlier: .* is damaged: splits\.parquet is missing"):
        chain(store, recipe(tmp_path / "b", lines(range(61)), earlier=first.fingerprint), until="split")


@pytest.mark.parametrize(("stage", "name"), [("ingest", "rows.parquet"), ("clean", "groups.parquet")])
def test_what_an_earlier_split_was_made_from_must_be_there(
    store: Store, tmp_path: Path, chain: Any, stage: str, name: str
) -> None:
    made = chain(store, recipe(tmp_path / "a", lines(range(60))), until="split")
    Path(made[stage].path(name)).unlink()
    with pytest.raises(RequestError, match=rf"split\.earlier: .* is damaged: {name} is missing"):
        chain(store, recipe(tmp_path / "b", lines(range(61)), earlier=made["split"].fingerprint), until="split")


@pytest.mark.parametrize(("named", "expected"), [(("train",), (28, 6, 6)), (("train", "val"), (17, 20, 3))])
def test_test_rows_are_drawn_where_the_data_names_none(
    store: Store, tmp_path: Path, chain: Any, named: tuple[str, ...], expected: tuple[int, int, int]
) -> None:
    rows = [line for number in range(40) for line in lines(range(number, number + 1), named[number % len(named)])]
    made = chain(store, recipe(tmp_path / "a", rows), until="split")
    count = Counter(splits(made).values())
    assert tuple(count[name] for name in ("train", "val", "test")) == pytest.approx(expected, abs=1)
    assert made["assign"].measured["warnings"] == [
        f"the data names no test samples: {count['test']} were drawn, by split.fractions"
    ]
    none = chain(store, recipe(tmp_path / "a", rows, fractions=[0.8, 0.2, 0]), until="split")
    assert "test" not in splits(none).values()


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (lines(range(3)), {"folds": 5, "fold": 4}, r"split\.folds: 5 folds need as many groups, and there are 3"),
        (lines(range(9), "train"), {"folds": 3}, r"split\.folds: the data names every sample's split"),
        (lines(range(9), "test"), {}, r"the data names 9 test; split\.use_given=false"),
        ([*lines(range(9), "train"), *lines(range(9), "test")], {}, r"of 9 given as train, 9 are in one group"),
    ],
)
def test_splits_that_cannot_be_are_refused_with_the_key_that_mends_them(
    store: Store, tmp_path: Path, chain: Any, rows: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        chain(store, recipe(tmp_path / "a", rows, **options), until="split")


def test_neither_order_nor_names_of_rows_move_them(store: Store, tmp_path: Path, chain: Any) -> None:
    rows = lines(range(80))
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(80)]
    one = splits(chain(store, recipe(tmp_path / "a", rows), until="split"))
    assert splits(chain(store, recipe(tmp_path / "b", shuffled), until="split")) == one
