"""Of two data sets, which samples of the one the other holds too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests_adopted import picture
from tests_planted import commit

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.near import find_near
from ssl_tasks.cleaning.overlap import Some, comparable, overlap
from ssl_tasks.modalities.image import looks
from ssl_tasks.shards import Shards
from ssl_tasks.store import Store


def cleaned(store: Store, folder: Path, chain: Any) -> tuple[Artifact, list[str]]:
    made = chain(store, {"ingest": {"path": str(folder)}, "clean": {"error_budget": 0.5}}, until="clean")
    return made["clean"], made["ingest"].table("rows.parquet")["source"].to_pylist()


def folder(root: Path, **pictures: int) -> Path:
    root.mkdir()
    for name, seed in pictures.items():
        picture(seed).save(root / f"{name}.png")
    return root


def test_equal_and_near_ones_are_found_and_no_others(store: Store, tmp_path: Path, chain: Any) -> None:
    first = folder(tmp_path / "seen", **{f"s{seed:02d}": seed for seed in range(40)})
    (first / "broken.png").write_bytes(b"no picture")  # rows and places in the prints are not the same numbers
    second = folder(tmp_path / "tested", **{f"t{seed}": seed for seed in range(100, 130)})
    picture(5).save(second / "copy.bmp")
    picture(7).save(second / "again.jpg", quality=40)
    picture(30).resize((48, 48)).save(second / "small.png")
    picture(9).save(second / "unasked.bmp")
    seen, names = cleaned(store, first, chain)
    tested, others = cleaned(store, second, chain)
    asked = np.array([row for row, name in enumerate(others) if name != "unasked.bmp"])
    known = np.array([row for row, name in enumerate(names) if name not in ("broken.png", "s30.png")])
    found = overlap(Some(seen, known), Some(tested, asked), 0.9)
    pairs = {
        others[row]: (names[other], equal)
        for row, other, equal in zip(found.tested, found.seen, found.equal, strict=True)
    }
    assert pairs == {"copy.bmp": ("s05.png", True), "again.jpg": ("s07.png", False)}
    assert found.similarity[found.equal].tolist() == [1.0]
    assert 0.9 <= found.similarity[~found.equal][0] <= 1.001
    assert np.all(np.diff(found.tested) > 0)
    whole = overlap(Some(seen, np.delete(np.arange(len(names)), names.index("broken.png"))), Some(tested, asked), 0.9)
    assert {others[row] for row in whole.tested} == {"copy.bmp", "again.jpg", "small.png"}
    equal = overlap(Some(seen, known), Some(tested, asked), None)
    assert [others[row] for row in equal.tested] == ["copy.bmp"]


def test_the_most_alike_one_is_named(store: Store, tmp_path: Path, chain: Any) -> None:
    first = folder(tmp_path / "seen", **{f"s{seed:02d}": seed for seed in range(30)})
    for quality in (10, 90, 30):
        picture(3).save(first / f"q{quality}.jpg", quality=quality)
    (first / "s03.png").unlink()
    second = folder(tmp_path / "tested", t3=3, t99=99)
    seen, names = cleaned(store, first, chain)
    tested, _ = cleaned(store, second, chain)
    found = overlap(Some(seen, np.arange(len(names))), Some(tested, np.arange(2)), 0.9)
    assert [names[row] for row in found.seen] == ["q90.jpg"]


def test_only_pairs_across_the_border_are_compared() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(400, looks.PRINT_SIZE))
    values[200:260] = values[:60] + 0.1 * random.normal(size=(60, looks.PRINT_SIZE))
    values[60:120] = values[:60] + 0.1 * random.normal(size=(60, looks.PRINT_SIZE))  # alike, on one side
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)
    signatures = looks.signatures(values)
    parts = [slice(0, 150), slice(150, 400)]
    held = [
        Shards([np.arange(len(of[part])) for part in parts], [of[part] for part in parts])
        for of in (signatures, values)
    ]
    products = values.astype(np.float32) @ values.astype(np.float32).T
    expected = {(int(a), int(b)) for a, b in np.argwhere(products >= 0.9) if a < 200 <= b}
    found = find_near(held[0], held[1], np.arange(400), 0.9, across=200)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(expected) >= 100
    assert pairs <= expected
    assert len(pairs) >= 0.99 * len(expected)
    whole = find_near(held[0], held[1], np.arange(400), 0.9)
    assert len(whole.first) > len(found.first)


def test_keys_of_other_versions_are_not_compared(store: Store, tmp_path: Path) -> None:
    one = commit(store, "clean", lambda out: None, 3)
    other = SimpleNamespace(manifest=one.manifest.model_copy(update={"versions": {"clean": 2}}))
    assert comparable(one, one)
    assert not comparable(one, other)  # type: ignore[arg-type]  # what is looked at


def test_nothing_tested_is_nothing_found(store: Store, tmp_path: Path, chain: Any) -> None:
    seen, _ = cleaned(store, folder(tmp_path / "seen", a=1, b=2), chain)
    none = np.zeros(0, np.int64)
    assert len(overlap(Some(seen, np.arange(2)), Some(seen, none), 0.9).tested) == 0
    assert len(overlap(Some(seen, none), Some(seen, np.arange(2)), 0.9).tested) == 0


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_a_data_set_against_itself_is_equal_throughout(
    store: Store, tmp_path: Path, chain: Any, threshold: float | None
) -> None:
    seen, names = cleaned(store, folder(tmp_path / "seen", **{f"s{n}": n for n in range(12)}), chain)
    found = overlap(Some(seen, np.arange(12)), Some(seen, np.arange(12)), threshold)
    assert found.equal.all()
    assert found.tested.tolist() == found.seen.tolist() == list(range(len(names)))
