"""Clean on image files: near duplicates, contradicting labels, outliers, thumbnails, warnings, poison."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning import quarantine
from ssl_tasks.cleaning.duplicates import conflicts
from ssl_tasks.cleaning.groups import Sets
from ssl_tasks.cleaning.quarantine import Found
from ssl_tasks.errors import StageError
from ssl_tasks.modalities.image import MODALITY
from ssl_tasks.shards import in_parts, iterate
from ssl_tasks.store import Store


def picture(seed: int, side: int = 64) -> Image.Image:
    """Smooth shapes, different for every seed."""
    coarse = np.random.default_rng(seed).integers(30, 220, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(60):
        place = tmp_path / "data" / ("cat" if seed % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        picture(seed).save(place / f"{seed:02d}.png")
    return tmp_path / "data"


def cleaned(store: Store, folder: Path, chain: Any, **clean: Any) -> dict[str, Artifact]:
    return chain(store, {"ingest": {"path": str(folder)}, "clean": clean, "normalize": {"size": 16}}, until="clean")


def groups(made: dict[str, Artifact]) -> dict[str, str]:
    sources = made["ingest"].table("rows.parquet")["source"].to_pylist()
    rows = made["clean"].table("groups.parquet").to_pylist()
    return {sources[row["row"]]: row["group_id"] for row in rows}


def test_near_duplicates_share_a_group_and_others_do_not(store: Store, folder: Path, chain: Any) -> None:
    picture(7).save(folder / "cat" / "again.jpg", quality=40)
    picture(7).resize((48, 48)).save(folder / "cat" / "small.webp")
    ImageEnhance.Brightness(picture(8)).enhance(0.8).save(folder / "dog" / "dark.png")
    made = cleaned(store, folder, chain)
    found = groups(made)
    assert found["cat/07.png"] == found["cat/again.jpg"] == found["cat/small.webp"]
    assert found["dog/08.png"] == found["dog/dark.png"]
    assert len(set(found.values())) == 60
    assert made["clean"].measured["duplicates"] == 3
    assert made["clean"].measured["equal"] == 0
    pairs = made["clean"].table("duplicates.parquet").to_pylist()
    assert {pair["kind"] for pair in pairs} == {"near"}
    assert all(0.9 <= pair["similarity"] < 1.01 for pair in pairs)
    apart = groups(cleaned(store, folder, chain, near_duplicates=None))
    assert len(set(apart.values())) == 63


def test_groups_are_transitive_over_equal_near_and_named_rows(store: Store, folder: Path, chain: Any) -> None:
    picture(7).save(folder / "cat" / "near.jpg", quality=40)
    shutil.copy(folder / "cat" / "near.jpg", folder / "cat" / "same.jpg")
    found = groups(cleaned(store, folder, chain))
    assert len({found[f"cat/{name}"] for name in ("07.png", "near.jpg", "same.jpg")}) == 1


def test_contradicting_labels_are_flagged_and_kept(store: Store, folder: Path, chain: Any) -> None:
    picture(7).save(folder / "dog" / "wrong.jpg", quality=60)
    made = cleaned(store, folder, chain)["clean"]
    found = {row["source"]: row for row in made.table("quarantine.parquet").to_pylist()}
    assert set(found) == {"cat/07.png", "dog/wrong.jpg"}
    assert found["cat/07.png"]["severity"] == "flagged"
    assert found["cat/07.png"]["reason"] == "conflicting_label"
    assert found["cat/07.png"]["detail"] == "cat; its duplicate dog/wrong.jpg is dog"
    assert made.measured["conflicting_labels"] == 1
    assert (made.measured["rejected"], made.measured["flagged"], made.rows) == (0, 2, 61)


def test_contradicting_sets_of_labels_are_flagged_too(store: Store, folder: Path, chain: Any) -> None:
    told: list[tuple[str, Any]] = [
        ("cat/01.png", ["a", "b"]),
        ("cat/01.png", ["b", "a"]),  # in another order, and no other set
        ("cat/03.png", ["a", "b"]),
        ("cat/03.png", ["a"]),
        ("cat/05.png", []),
        ("cat/05.png", ["c"]),
        ("cat/07.png", ["d"]),
        ("cat/07.png", "d"),
        ("cat/09.png", ["d"]),
        ("cat/09.png", None),
    ]
    listed = folder / "list.jsonl"
    listed.write_text("".join(json.dumps({"path": path, "label": label}) + "\n" for path, label in told))
    made = cleaned(store, listed, chain)["clean"]
    found = {row["row"]: row["detail"] for row in made.table("quarantine.parquet").to_pylist()}
    assert found == {
        2: "a, b; its duplicate list.jsonl#3 -> cat/03.png is a",
        3: "a; its duplicate list.jsonl#2 -> cat/03.png is a, b",
        4: "without a class; its duplicate list.jsonl#5 -> cat/05.png is c",
        5: "c; its duplicate list.jsonl#4 -> cat/05.png is without a class",
    }
    assert made.measured["conflicting_labels"] == 2


@pytest.mark.parametrize("seed", range(3))
def test_contradictions_are_those_of_a_naive_search(store: Store, folder: Path, chain: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(60, 40, replace=False))
    sets = Sets(rows, random.integers(0, 12, 40))
    labels = [None if random.random() < 0.2 else str(random.integers(0, 2)) for _ in range(60)]
    table = "path,label\n" + "".join(
        f"{path.relative_to(folder)},{label or ''}\n"
        for path, label in zip(sorted(folder.glob("*/*.png")), labels, strict=True)
    )
    (folder / "list.csv").write_text(table)
    made = chain(store, {"ingest": {"path": str(folder / "list.csv")}, "normalize": {"size": 16}}, until="ingest")
    found, count = conflicts(made["ingest"], sets)
    told = {}
    for row, label in zip(sets.rows.tolist(), sets.labels, strict=True):
        others = [labels[other] for other in sets.rows[sets.labels == label].tolist()]
        if labels[row] and any(other and other != labels[row] for other in others):
            told[row] = label
    rows_found = [row for row, _ in found]
    assert rows_found == sorted(told)
    assert count == len(set(told.values()))


def test_flags_are_written_a_part_at_a_time(
    store: Store, folder: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cleaned(store, folder, chain)
    monkeypatch.setattr(
        quarantine, "iterate", lambda *given: (part for shard in iterate(*given) for part in in_parts(shard, 10))
    )
    given: list[int] = []
    written: list[int] = []

    def flags() -> Iterator[tuple[int, Found]]:
        for row in (3, 3, 8, 12, 19, 19, 20, 59):
            given.append(row)
            yield row, Found("odd", f"number {row}", "flagged")

    class Writer:
        def write_table(self, table: Any) -> None:
            written.extend(table["row"].to_pylist())
            assert given[: len(written)] == written
            assert len(given) <= len(written) + 1
            assert None not in table["thumbnail"].to_pylist()

    quarantine.Quarantine(Writer(), "clean").add_rows(made["ingest"], MODALITY, flags())  # type: ignore[arg-type]
    assert written == [3, 3, 8, 12, 19, 19, 20, 59]


def test_unusual_pictures_are_flagged_by_the_measure_that_tells_them(store: Store, folder: Path, chain: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "cat" / "noise.png")
    made = cleaned(store, folder, chain)["clean"]
    (row,) = made.table("quarantine.parquet").to_pylist()
    assert (row["source"], row["severity"], row["reason"]) == ("cat/noise.png", "flagged", "outlier")
    assert row["detail"].split()[0] in ("noise", "sharpness")
    scores = made.table("outliers.parquet")
    assert scores.num_rows == made.table("measures.parquet").num_rows == 61


def test_rejected_and_flagged_rows_have_thumbnails_where_there_is_something_to_see(
    store: Store, folder: Path, chain: Any
) -> None:
    whole = (io.BytesIO(), io.BytesIO())
    picture(90, 200).save(whole[0], "JPEG", quality=95)
    (folder / "cat" / "cut.jpg").write_bytes(whole[0].getvalue()[:4000])
    (folder / "cat" / "text.jpg").write_text("no picture")
    picture(91).resize((20, 3)).save(folder / "cat" / "thin.png")
    made = cleaned(store, folder, chain, error_budget=0.1)["clean"]
    found = {row["source"]: row for row in made.table("quarantine.parquet").to_pylist()}
    assert {name: row["reason"] for name, row in found.items()} == {
        "cat/cut.jpg": "truncated",
        "cat/text.jpg": "unreadable",
        "cat/thin.png": "too_small",
    }
    assert {row["severity"] for row in found.values()} == {"rejected"}
    assert found["cat/text.jpg"]["thumbnail"] is None
    for name in ("cat/cut.jpg", "cat/thin.png"):
        with Image.open(io.BytesIO(found[name]["thumbnail"])) as image:
            assert max(image.size) <= 96


def test_damaged_files_give_the_same_artifact_in_every_run(folder: Path, tmp_path: Path, chain: Any) -> None:
    (folder / "cat" / "text.jpg").write_text("no picture")
    (folder / "cat" / "scene.tif").write_bytes(b"II*\0" + b"garbage" * 20)
    whole = io.BytesIO()
    picture(90, 200).save(whole, "PNG")
    (folder / "cat" / "cut.png").write_bytes(whole.getvalue()[:4000])
    stores = [Store.open(str(tmp_path / name)) for name in ("first", "second")]
    first, second = (cleaned(store, folder, chain, error_budget=0.1)["clean"].manifest for store in stores)
    assert first.measured["rejected"] == 3
    assert first.data_checksum == second.data_checksum


def test_a_set_of_duplicates_that_takes_much_of_the_data_is_warned_of(store: Store, folder: Path, chain: Any) -> None:
    for number in range(25):
        picture(7).save(folder / "cat" / f"copy{number}.jpg", quality=40 + number)
    measured = cleaned(store, folder, chain)["clean"].measured
    assert measured["largest_group"] == 26
    (warning,) = measured["warnings"]
    assert "26 of 85" in warning
    assert "clean.near_duplicates" in warning


def save(path: Path, values: np.ndarray) -> None:
    """As an array, whatever the file's name says."""
    with path.open("wb") as stream:
        np.save(stream, values)


@pytest.mark.parametrize("at", ["cat/000", "dog/zzz"])
def test_images_that_cannot_be_stored_beside_the_others_are_rejected(
    store: Store, folder: Path, chain: Any, at: str
) -> None:
    values = np.random.default_rng(0).random((64, 64, 4), np.float32)
    save(folder / f"{at}.png", values)
    save(folder / f"{at}b.png", values[:, :, :3])
    picture(70).convert("L").save(folder / f"{at}c.png")
    picture(7).save(folder / "cat" / "near.jpg", quality=40)
    sections = {"ingest": {"path": str(folder)}, "clean": {"error_budget": 0.04}, "normalize": {"size": 16}}
    made = chain(store, sections, until="normalize")
    rows = made["clean"].table("quarantine.parquet").to_pylist()
    found = {row["source"]: row["detail"] for row in rows if row["reason"] == "unlike_others"}
    usual = "96% of the images have 3 of uint8 or 1 of uint8"
    assert found == {
        f"{at}.png": f"4 channels of float32; {usual}",
        f"{at}b.png": f"3 channels of float32; {usual}",
    }
    assert {row["severity"] for row in rows if row["reason"] == "unlike_others"} == {"rejected"}
    assert made["clean"].measured["reasons"] == {"unlike_others": 2}
    assert made["clean"].rows == made["clean"].table("outliers.parquet").num_rows == 62
    assert made["normalize"].rows == 62
    together = groups(made)
    assert together["cat/07.png"] == together["cat/near.jpg"]
    assert len(set(together.values())) == 61


def test_images_unlike_most_count_against_the_budget(store: Store, folder: Path, chain: Any) -> None:
    save(folder / "cat" / "odd.png", np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8))
    message = r"1 of 61 .*\(1 unlike_others\).*cat/odd\.png: unlike_others \(4 channels of uint8; 98% of the images"
    with pytest.raises(StageError, match=message):
        cleaned(store, folder, chain)


def test_of_equally_many_the_first_rows_family_stays(store: Store, tmp_path: Path, chain: Any) -> None:
    random = np.random.default_rng(0)
    for number, channels in enumerate((4, 5, 5, 4, 3)):
        save(tmp_path / f"{number}.png", random.integers(0, 256, (64, 64, channels), dtype=np.uint8))
    made = cleaned(store, tmp_path, chain, error_budget=0.7)
    assert list(groups(made)) == ["0.png", "3.png"]


def test_a_poison_file_costs_its_row_and_not_the_run(store: Store, folder: Path, chain: Any) -> None:
    huge = bytearray((folder / "cat" / "01.png").read_bytes())
    huge[16:24] = (200_000).to_bytes(4, "big") * 2
    (folder / "cat" / "bomb.png").write_bytes(bytes(huge))
    array = io.BytesIO()
    np.save(array, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "cat" / "pickle.png").write_bytes(array.getvalue())
    made = cleaned(store, folder, chain, error_budget=0.1)["clean"]
    reasons = {row["source"]: row["reason"] for row in made.table("quarantine.parquet").to_pylist()}
    assert set(reasons) == {"cat/bomb.png", "cat/pickle.png"}
    assert made.rows == 60


def test_a_folder_without_a_usable_picture_says_so(store: Store, tmp_path: Path, chain: Any) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_text("no picture")
    with pytest.raises(StageError, match=r"3 of 3 samples cannot be used \(3 unreadable\)"):
        cleaned(store, tmp_path, chain, error_budget=1.0)


def test_a_damaged_shard_is_made_anew_with_a_warning(store: Store, folder: Path, chain: Any) -> None:
    """A corrupt raw shard is found when the next stage is about to read it."""
    from flows.dag import DAG
    from flows.recipe import build_recipe
    from ssl_tasks.materialize import materialize

    sections = {"ingest": {"path": str(folder)}, "clean": {}, "normalize": {"size": 16}}
    first = chain(store, sections, until="ingest")["ingest"]
    shard = first.path(first.names("raw/")[0])
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    store._verified.clear()
    built = build_recipe({"name": "test", "store": store.uri, **sections}, where="test")
    made = materialize(store, DAG[0], built.config_of(DAG[0]), {}, fingerprint=first.fingerprint, verify=True)
    assert made.status == "ran"
    assert made.warning is not None
    assert "another checksum" in made.warning
    assert cleaned(store, folder, chain)["clean"].rows == 60


def test_what_broke_the_budget_can_be_listed(store: Store, folder: Path, chain: Any) -> None:
    for number in range(20):
        (folder / f"bad{number:02d}.png").write_bytes(b"no picture")
    options = {"ingest": {"path": str(folder)}, "normalize": {"size": 16}, "clean": {"error_budget": 0.1}}
    with pytest.raises(StageError, match=r"20 of \d+ samples cannot be used .* pretextflow quarantine RUN"):
        chain(store, options, until="clean")
    (left,) = [
        data for name in store.list("partial") if (data := store.read_bytes(f"partial/{name}/quarantine.parquet"))
    ]
    assert pq.read_table(io.BytesIO(left))["reason"].to_pylist() == ["unreadable"] * 20
