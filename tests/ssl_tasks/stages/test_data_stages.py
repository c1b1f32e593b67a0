"""Ingest to split on real files: identity, quarantine, groups, no leakage, exact splits under a pinned seed."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.shards import Shards
from ssl_tasks.stages import ingest
from ssl_tasks.stages.ingest import IngestConfig
from ssl_tasks.store import Store


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "folder"))


def sections(folder: Path, **more: Any) -> dict[str, Any]:
    clean = {"near_duplicates": None, **more.pop("clean", {})}
    return {"ingest": {"path": str(folder)}, "normalize": {"size": 8}, "clean": clean, **more}


def test_an_empty_and_a_useless_folder_are_refused(store: Store, tmp_path: Path, chain: Any) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        (tmp_path / "notes.txt").write_text("no picture")
        with pytest.raises(RequestError, match=r"ingest\.path"):
            chain(store, sections(folder), until="ingest")


def test_the_fingerprint_follows_content_and_not_place(store: Store, folder: Path, shapes: Path, chain: Any) -> None:
    here = chain(store, sections(folder), until="ingest")["ingest"]
    assert chain(store, sections(shapes), until="ingest")["ingest"].fingerprint == here.fingerprint
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "left" / "001.png")
    assert chain(store, sections(folder), until="ingest")["ingest"].fingerprint != here.fingerprint


def test_broken_files_go_to_quarantine_with_a_reason(store: Store, folder: Path, chain: Any) -> None:
    whole = (folder / "left" / "001.png").read_bytes()
    (folder / "left" / "001.png").write_bytes(whole[: len(whole) // 2])
    (folder / "left" / "text.jpg").write_text("I am no picture")
    made = chain(store, sections(folder, clean={"error_budget": 0.1, "max_pixels": 200}), until="split")
    found = made["clean"].table("quarantine.parquet").to_pylist()
    assert [(row["source"], row["reason"]) for row in found] == [
        ("left/001.png", "truncated"),
        ("left/text.jpg", "unreadable"),
    ]
    assert all(row["detail"] for row in found)
    assert made["clean"].rows == made["split"].rows == 95
    assert "001.png" not in str(made["split"].table("splits.parquet")["row"].to_pylist())


def test_over_the_budget_the_stage_fails_and_says_what_it_saw(store: Store, folder: Path, chain: Any) -> None:
    (folder / "left" / "text.jpg").write_text("I am no picture")
    with pytest.raises(StageError, match=r"1 of 97 samples.*1 unreadable.*left/text\.jpg.*clean\.error_budget"):
        chain(store, sections(folder, clean={"error_budget": 0.001}), until="clean")


def test_a_huge_picture_is_refused_before_it_is_decoded(store: Store, folder: Path, chain: Any) -> None:
    Image.new("1", (30_000, 30_000)).save(folder / "left" / "bomb.png")
    made = chain(store, sections(folder, clean={"error_budget": 0.1}), until="clean")["clean"]
    assert made.measured["reasons"] == {"too_large": 1}


def test_duplicates_share_a_group_however_they_are_encoded(store: Store, folder: Path, chain: Any) -> None:
    shutil.copy(folder / "left" / "001.png", folder / "right" / "same.png")
    Image.open(folder / "left" / "001.png").save(folder / "left" / "again.bmp")
    made = chain(store, sections(folder), until="split")
    sources = made["ingest"].table("rows.parquet")["source"].to_pylist()
    groups = dict(zip(sources, made["clean"].table("groups.parquet")["group_id"].to_pylist(), strict=True))
    assert groups["left/001.png"] == groups["right/same.png"] == groups["left/again.bmp"]
    assert len(set(groups.values())) == 96
    assert made["clean"].measured["duplicates"] == 2
    assert made["clean"].measured["conflicting_labels"] == 1


def test_no_group_crosses_a_split_and_the_naive_split_would_leak(store: Store, folder: Path, chain: Any) -> None:
    for path in sorted(folder.glob("*/*.png")):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    split = chain(store, sections(folder), until="split")["split"]
    table = split.table("splits.parquet").to_pylist()
    places: dict[str, set[str]] = {}
    for row in table:
        places.setdefault(row["group_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in places.values())
    assert split.measured["leaked_test_rows"] == 0
    assert split.measured["naive_leaked_test_rows"] > 10


def test_classes_keep_their_shares(store: Store, shapes: Path, chain: Any) -> None:
    made = chain(store, sections(shapes), until="split")["split"].table("splits.parquet")
    by_class = Counter(zip(made["split"].to_pylist(), made["label"].to_pylist(), strict=True))
    for label in ("left", "right"):
        assert [by_class[name, label] for name in ("train", "val", "test")] == [34, 7, 7]


def split_counts(made: dict[str, Any]) -> dict[str, Counter[str]]:
    """By class, how many rows each split has."""
    rows = made["split"].table("splits.parquet").to_pylist()
    return {
        label: Counter(row["split"] for row in rows if row["label"] == label)
        for label in {row["label"] for row in rows}
    }


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("classes", "rows", "held_out"), [(100, 3, 45), (200, 1, 30), (60, 2, 18), (10, 48, 72), (3, 100, 45)]
)
def test_small_classes_have_test_rows_too(
    store: Store, tmp_path: Path, chain: Any, seed: int, classes: int, rows: int, held_out: int
) -> None:
    lines = [f"{label}.{row},c{label}" for label in range(classes) for row in range(rows)]
    recipe = table(tmp_path, "\n".join(["x,kind", *lines]) + "\n") | {"split": {"seed": seed}}
    found = split_counts(chain(store, recipe, until="split"))
    total = sum(found.values(), Counter())
    for name in ("val", "test"):
        assert abs(total[name] - held_out) <= 1
        assert {count[name] for count in found.values()} <= {int(0.15 * rows), int(0.15 * rows) + 1}
    if 1 < rows <= 3:
        assert all(count["train"] >= rows - 1 for count in found.values())


def test_small_classes_of_whole_groups_have_test_rows_too(store: Store, tmp_path: Path, chain: Any) -> None:
    lines = [f"{label}.{row},g{label}.{row // 3},c{label}" for label in range(50) for row in range(6)]
    recipe = table(tmp_path, "\n".join(["x,who,kind", *lines]) + "\n", group_column="who")
    total = sum(split_counts(chain(store, recipe, until="split")).values(), Counter())
    assert (total["val"], total["test"]) == (45, 45)


def test_a_class_of_one_large_group_leaves_the_shares_of_others(store: Store, tmp_path: Path, chain: Any) -> None:
    lines = [f"{row}.5,big,a" for row in range(1000)]
    lines += [f"{row}.25,g{label}.{row},{label}" for label in "bcdef" for row in range(100)]
    recipe = table(tmp_path, "\n".join(["x,who,kind", *lines]) + "\n", group_column="who")
    found = split_counts(chain(store, recipe, until="split"))
    for label in "bcdef":
        assert found[label]["test"] in (14, 15, 16)
        assert found[label]["val"] in (14, 15, 16)


def test_statistics_see_train_rows_only(store: Store, shapes: Path, chain: Any) -> None:
    before = chain(store, sections(shapes), until="split")
    sources = before["ingest"].table("rows.parquet")["source"].to_pylist()
    splits = before["split"].table("splits.parquet")["split"].to_pylist()
    shards = Shards.open(before["normalize"])
    train = np.flatnonzero(np.array(splits) == "train")
    pixels = shards.take(train).reshape(-1, 3) / 255
    stats = before["normalize"].json("stats.json")
    np.testing.assert_allclose(stats["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats["std"], pixels.std(0), rtol=1e-9)
    everything = shards.take(np.arange(len(sources))).reshape(-1, 3) / 255
    assert not np.allclose(stats["mean"], everything.mean(0), rtol=1e-6)


CSV = "x,y,who,part,kind\n" + "".join(
    f"{i}.5,{i * i % 7},p{i // 2},{'test' if i % 10 < 2 else 'train'},{'ab'[i % 2]}\n" for i in range(40)
)


def table(tmp_path: Path, text: str, **options: Any) -> dict[str, Any]:
    (tmp_path / "data.csv").write_text(text)
    ingest = {"path": str(tmp_path / "data.csv"), "modality": "tabular", "label_column": "kind", **options}
    return {"ingest": ingest, "clean": {"error_budget": 0.2}}


def test_exact_splits_under_a_pinned_seed(store: Store, tmp_path: Path, chain: Any) -> None:
    """From text, so that it holds wherever this runs: a picture's bytes depend on the encoder's version."""

    def test_rows(seed: int) -> list[int]:
        made = chain(store, table(tmp_path, CSV) | {"split": {"seed": seed}}, until="split")["split"]
        rows = made.table("splits.parquet").to_pylist()
        return [row["row"] for row in rows if row["split"] == "test"]

    assert test_rows(0) == [6, 7, 8, 19, 20, 21]
    assert test_rows(1) != test_rows(0)


def test_named_groups_and_given_splits_are_kept(store: Store, tmp_path: Path, chain: Any) -> None:
    recipe = table(tmp_path, CSV, group_column="who", split_column="part")
    made = chain(store, recipe, until="split")["split"].table("splits.parquet")
    assert [name == "test" for name in made["split"].to_pylist()] == [i % 10 < 2 for i in range(40)]
    assert len(set(made["group_id"].to_pylist())) == 20


def test_a_row_without_a_given_split_follows_its_group(store: Store, tmp_path: Path, chain: Any) -> None:
    """Ten groups of three: (train, none, none), (val, none, none), (test, val, none), then without any."""
    given = {0: ["train", "", ""], 1: ["val", "", ""], 2: ["test", "val", ""]}
    lines = [f"{3 * g + i}.5,p{g},{given.get(g, ['', '', ''])[i]},{'ab'[i % 2]}" for g in range(10) for i in range(3)]
    recipe = table(tmp_path, "\n".join(["x,who,part,kind", *lines]) + "\n", group_column="who", split_column="part")
    for seed in range(4):  # whatever the seed would have given the group
        made = chain(store, recipe | {"split": {"seed": seed}}, until="split")
        splits = {row["row"]: row["split"] for row in made["split"].table("splits.parquet").to_pylist()}
        assert [splits.get(row) for row in range(9)] == ["train"] * 3 + ["val"] * 3 + ["test", None, "test"]
        found = made["assign"].table("quarantine.parquet").to_pylist()
        assert [(row["row"], row["reason"]) for row in found] == [(7, "duplicate_of_test")]
        assert made["split"].rows == 29


def test_a_train_row_that_duplicates_a_given_test_row_is_quarantined(store: Store, tmp_path: Path, chain: Any) -> None:
    lines = CSV.splitlines()
    leak = lines[1].replace("test", "train").replace(",p0,", ",p99,")
    recipe = table(tmp_path, "\n".join([*lines, leak]) + "\n", split_column="part", drop_columns=["who"])
    made = chain(store, recipe, until="split")
    found = made["assign"].table("quarantine.parquet").to_pylist()
    assert [(row["source"], row["reason"]) for row in found] == [("data.csv#40", "duplicate_of_test")]
    assert made["split"].rows == 40
    assert made["split"].measured["splits"]["test"] == 8


def test_twins_in_a_table_are_kept_apart_and_grouped(store: Store, tmp_path: Path, chain: Any) -> None:
    lines = CSV.splitlines()
    made = chain(store, table(tmp_path, "\n".join([*lines, lines[5]]) + "\n"), until="clean")
    assert made["clean"].rows == 41
    assert len(set(made["ingest"].table("rows.parquet")["sample_id"].to_pylist())) == 41
    assert made["clean"].measured["duplicates"] == 1


def test_broken_lines_of_a_table_are_quarantined(store: Store, tmp_path: Path, chain: Any) -> None:
    lines = CSV.splitlines()
    lines[3] = "1.0,2"
    lines[4] = lines[4].replace("3.5", "three")
    made = chain(store, table(tmp_path, "\n".join(lines) + "\n"), until="normalize")
    found = {row["reason"]: row["detail"] for row in made["clean"].table("quarantine.parquet").to_pylist()}
    assert found["wrong_number_of_values"] == "1.0,2"
    assert "'three' is not a number" in found["not_a_number"]
    assert made["normalize"].rows == 38


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": "knd"}, "no column 'knd'"),
        ({"drop_columns": ["z"]}, "no column 'z'"),
        ({"drop_columns": ["x", "y", "who", "part"]}, "no column left"),
    ],
)
def test_wrong_columns_are_refused_by_name(
    store: Store, tmp_path: Path, chain: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        chain(store, table(tmp_path, CSV, **options), until="ingest")


@pytest.mark.parametrize("text", ["", "x,x,kind\n1,2,a\n"])
def test_tables_without_a_usable_header_are_refused(store: Store, tmp_path: Path, chain: Any, text: str) -> None:
    with pytest.raises(RequestError, match=r"data\.csv"):
        chain(store, table(tmp_path, text), until="ingest")


def test_a_table_without_rows_is_refused(store: Store, tmp_path: Path, chain: Any) -> None:
    with pytest.raises(RequestError, match=r"data\.csv has no rows"):
        chain(store, table(tmp_path, "x,kind\n"), until="ingest")
    pq.write_table(pa.table({"x": pa.array([], pa.float64())}), tmp_path / "data.parquet")
    with pytest.raises(RequestError, match=r"data\.parquet has no rows"):
        chain(store, {"ingest": {"path": str(tmp_path / "data.parquet"), "modality": "tabular"}}, until="ingest")


@pytest.mark.parametrize("key", [name for name in IngestConfig.model_fields if name.endswith(("column", "columns"))])
def test_keys_for_columns_are_refused_for_folders_before_anything_runs(shapes: Path, key: str) -> None:
    value = ["x"] if key in ("drop_columns", "class_columns") else "x"
    config = IngestConfig.model_validate({"path": str(shapes), key: value})
    with pytest.raises(RequestError, match=rf"ingest\.{key}: means nothing for images in folders"):
        ingest.source(config)


@pytest.mark.parametrize("key", ["image_column", "mask_column", "text_column", "folders"])
def test_keys_for_images_are_refused_for_tables_before_anything_runs(tmp_path: Path, key: str) -> None:
    (tmp_path / "data.csv").write_text(CSV)
    config = IngestConfig.model_validate(
        {"path": str(tmp_path), "modality": "tabular", key: ["label"] if key == "folders" else "x"}
    )
    with pytest.raises(RequestError, match=rf"ingest\.{key}: means nothing for tables of features"):
        ingest.source(config)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"normalize": {"channels": 0}}, r"normalize.*channels is at least 1"),
        ({"normalize": {"clip_percentiles": [9, 1]}}, r"normalize.*\[lower, upper\]"),
        ({"split": {"seed": 2**31}}, r"split\.seed"),
        ({"split": {"folds": 3, "fold": 3}}, r"split.*fold 3 of 3"),
        ({"clean": {"near_duplicates": 1.5}}, r"clean\.near_duplicates"),
    ],
)
def test_wrong_values_are_refused_before_anything_runs(
    store: Store, shapes: Path, chain: Any, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        chain(store, {"ingest": {"path": str(shapes)}, **section}, until="ingest")


def test_a_changed_execution_field_keeps_every_artifact(store: Store, shapes: Path, chain: Any) -> None:
    first = chain(store, sections(shapes), until="augment")
    second = chain(store, sections(shapes, pretrain={"num_workers": 2, "threads": 3}), until="augment")
    assert {n: a.manifest.attempt for n, a in first.items()} == {n: a.manifest.attempt for n, a in second.items()}
