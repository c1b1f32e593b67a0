"""The ingest stage on real sources: what is written, what is measured, and a source that does not rest."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ssl_tasks import parallel, shards
from ssl_tasks.errors import StageError
from ssl_tasks.shards import iterate
from ssl_tasks.sources import folders
from ssl_tasks.stages import ingest
from ssl_tasks.store import Output, Store


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """300 files of different sizes in nested folders."""
    random = np.random.default_rng(0)
    for number in range(300):
        folder = tmp_path / "many" / ("train", "test")[number % 3 == 0] / f"class{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03d}.png").write_bytes(random.bytes(int(random.integers(1, 3000))))
    (tmp_path / "many" / "train" / "notes.txt").touch()
    return tmp_path / "many"


def test_rows_and_payload_are_the_files_in_order(store: Store, many: Path, chain: Any) -> None:
    made = chain(store, {"ingest": {"path": str(many)}}, until="ingest")["ingest"]
    files = sorted(many.rglob("*.png"), key=lambda file: file.relative_to(many).as_posix())
    rows = made.table("rows.parquet").to_pylist()
    payload = pa.concat_tables(iterate(made, "raw"))
    assert payload.schema.field("payload").type == pa.large_binary()
    assert payload["row"].to_pylist() == [row["row"] for row in rows] == list(range(300))
    assert payload["payload"].to_pylist() == [file.read_bytes() for file in files]
    assert [row["source"] for row in rows] == [file.relative_to(many).as_posix() for file in files]
    assert [(row["split"], row["label"]) for row in rows] == [file.parts[-3:-1] for file in files]
    measured = made.measured
    assert measured["classes"] == [f"class{number}" for number in range(5)]
    assert (measured["labelled"], measured["more_classes"], measured["files"]) == (300, False, 300)
    assert (measured["ignored"], measured["folders"]) == ({".txt": 1}, ["split", "label"])


def test_what_is_written_does_not_depend_on_threads(
    tmp_path: Path, many: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.ShardWriter.__init__, "__defaults__", (50, 40_000))
    monkeypatch.setattr("ssl_tasks.sources.listing.PIECE_BYTES", 10_000)
    checksums, names = set(), []
    for threads in (1, 3, 16):
        monkeypatch.setattr(parallel.os, "cpu_count", lambda threads=threads: threads)
        made = chain(Store.open(str(tmp_path / f"store{threads}")), {"ingest": {"path": str(many)}}, until="ingest")
        checksums.add(made["ingest"].manifest.data_checksum)
        names = made["ingest"].names("raw/")
    assert len(checksums) == 1
    assert len(names) > 8


def test_row_groups_are_few_and_bounded(store: Store, many: Path, chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "GROUP_ROWS", 150)
    made = chain(store, {"ingest": {"path": str(many)}}, until="ingest")["ingest"]
    groups = pq.ParquetFile(made.path("rows.parquet")).metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [256, 44]


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_folder_that_changes_while_it_is_read_is_refused_and_nothing_committed(
    store: Store, many: Path, chain: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Behind the place that is read: what was packed by then is as it was planned."""
    true_tables = folders.sample_tables
    done: list[int] = []

    def between(*args: Any) -> Any:
        if not done:
            first = many / "test" / "class0" / "000.png"
            if change == "changed":
                first.write_bytes(b"other")
            elif change == "removed":
                first.unlink()
            else:
                (many / "test" / "class0" / "0000.png").write_bytes(b"new")
        done.append(1)
        return true_tables(*args)

    monkeypatch.setattr(folders, "sample_tables", between)
    with pytest.raises(StageError, match="the source changed after the run was planned; run again when it rests"):
        chain(store, {"ingest": {"path": str(many)}}, until="ingest")
    assert not any("manifest.json" in store.list(f"objects/{name}") for name in store.list("objects"))
    monkeypatch.undo()
    made = chain(store, {"ingest": {"path": str(many)}}, until="ingest")["ingest"]
    assert made.rows == {"changed": 300, "added": 301, "removed": 299}[change]


def test_listed_files_that_are_missing_go_to_quarantine(store: Store, shapes: Path, tmp_path: Path, chain: Any) -> None:
    files = sorted(shapes.glob("*/*.png"))
    lines = [{"path": str(file), "label": file.parent.name} for file in files]
    lines.insert(3, {"path": "lost.png", "label": "left"})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sections = {"clean": {"error_budget": 0.1}, "normalize": {"size": 8}}
    made = chain(store, {"ingest": {"path": str(tmp_path / "list.jsonl")}, **sections}, until="normalize")
    assert made["ingest"].rows == 97
    assert made["ingest"].measured["missing"] == {"payload": 1}
    (rejected,) = made["clean"].table("quarantine.parquet").to_pylist()
    assert (rejected["row"], rejected["source"]) == (3, "list.jsonl#3 -> lost.png")
    assert rejected["reason"] == "missing"
    assert made["normalize"].rows == 96


def test_the_same_images_give_the_same_pixels_from_any_source(
    tmp_path: Path, shapes: Path, chain: Any, make_sources: Callable[[Path, Path], list[Path]]
) -> None:
    pixels, labels = set(), set()
    for number, path in enumerate([shapes, *make_sources(shapes, tmp_path)]):
        store = Store.open(str(tmp_path / f"store{number}"))
        made = chain(store, {"ingest": {"path": str(path)}, "normalize": {"size": 8}}, until="normalize")
        labels.add(tuple(made["ingest"].table("rows.parquet")["label"].to_pylist()))
        pixels.add(pa.concat_tables(iterate(made["normalize"], "payload"))["payload"].to_string())
        assert made["clean"].measured["rejected"] == 0
    assert len(labels) == len(pixels) == 1


@pytest.fixture
def make_sources() -> Callable[[Path, Path], list[Path]]:
    """Writes a class folder as a list, as a data set and as a tar, its files in the same order."""

    def make(folder: Path, target: Path) -> list[Path]:
        files = sorted(folder.glob("*/*.png"), key=lambda file: file.relative_to(folder).as_posix())
        lines = [f"{os.path.relpath(file, target)},{file.parent.name}" for file in files]
        (target / "list.csv").write_text("\n".join(["path,label", *lines]))
        columns = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
        pq.write_table(pa.table(columns), target / "data.parquet", row_group_size=40)
        with tarfile.open(target / "x.tar", "w") as tar:
            for file in files:
                tar.add(file, file.relative_to(folder))
        return [target / "list.csv", target / "data.parquet", target / "x.tar"]

    return make


def test_classes_are_counted_as_far_as_they_are_few(
    store: Store, tmp_path: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_CLASSES", 3)
    table = pa.table({"image": [b"x"] * 5, "label": [["a", "b"], None, ["c"], ["d", "a"], []]})
    pq.write_table(table, tmp_path / "data.parquet")
    measured = chain(store, {"ingest": {"path": str(tmp_path / "data.parquet")}}, until="ingest")["ingest"].measured
    assert measured["classes"] == ["a", "b", "c"]
    assert measured["more_classes"] is True
    assert (measured["labelled"], measured["multi_labelled"]) == (0, 4)


def test_progress_is_told_in_files_of_all(
    store: Store, many: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int | None, str]] = []
    monkeypatch.setattr(Output, "progress", lambda out, *progress: told.append(progress))
    chain(store, {"ingest": {"path": str(many)}}, until="ingest")
    assert told[-1] == (300, 300, "files")
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})


def test_a_picture_is_a_source(store: Store, tmp_path: Path, chain: Any) -> None:
    Image.linear_gradient("L").resize((4, 4)).save(tmp_path / "one.png")
    assert chain(store, {"ingest": {"path": str(tmp_path / "one.png")}}, until="clean")["clean"].rows == 1
