"""Listings: their hash, the memory of hashes, and files that change while they are read."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_tasks import parallel
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.sources import listing
from ssl_tasks.sources import memory as memory_file
from ssl_tasks.sources.base import Source
from ssl_tasks.sources.hashes import content_hash, content_hash_file
from ssl_tasks.sources.listing import Part, combined_hash, cut, listed
from ssl_tasks.sources.memory import Memory, Seen

Open = Callable[..., Source]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number in range(400):
        (root / f"{number % 3}").mkdir(parents=True, exist_ok=True)
        (root / f"{number % 3}" / f"{number:03d}.png").write_bytes(b"%d" % number)
    return root


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read for a listing."""
    names: list[str] = []
    true_read = listing._read

    def spy(path: str, size: int) -> bytes:
        names.append(Path(path).name)
        return true_read(path, size)

    monkeypatch.setattr(listing, "_read", spy)
    return names


def test_the_hash_is_that_of_contents_and_names_in_order(folder: Path, open_at: Open) -> None:
    lines = [
        f"{content_hash(file.read_bytes())} {file.relative_to(folder).as_posix()}\n"
        for file in sorted(folder.rglob("*.png"), key=lambda file: file.relative_to(folder).as_posix())
    ]
    assert open_at(folder).listing_hash() == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_an_unchanged_folder_is_not_read_again_and_its_memory_not_written(
    folder: Path, open_at: Open, hashed: list[str]
) -> None:
    first = open_at(folder).listing_hash()
    assert len(hashed) == 400
    path = open_at(folder).memory.path
    written = os.stat(path)
    hashed.clear()
    assert open_at(folder).listing_hash() == first
    assert hashed == []
    assert os.stat(path).st_ino == written.st_ino
    assert [file.name for file in path.parent.iterdir() if path.stem in file.name] == [path.name]


@pytest.mark.parametrize("change", ["content", "added", "removed", "last removed", "renamed"])
def test_only_what_changed_is_read_again(
    folder: Path, tmp_path: Path, open_at: Open, hashed: list[str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_file, "ROW_GROUP", 50)  # so that what is copied stands in several groups
    monkeypatch.setattr(memory_file, "BATCH", 7)
    before = open_at(folder).listing_hash()
    hashed.clear()
    read = []
    if change == "content":
        (folder / "1" / "001.png").write_bytes(b"other")
        read = ["001.png"]
    elif change == "added":
        (folder / "1" / "a.png").write_bytes(b"new")
        (folder / "0" / "a.png").write_bytes(b"new")
        read = ["a.png", "a.png"]
    elif change == "renamed":
        (folder / "1").rename(folder / "7")
        read = sorted(file.name for file in (folder / "7").iterdir())
    else:
        (folder / ("2" if change == "last removed" else "0") / ("398.png" if "last" in change else "000.png")).unlink()
    after = open_at(folder).listing_hash()
    assert after != before
    assert sorted(hashed) == read
    hashed.clear()
    assert open_at(folder).listing_hash() == after
    assert hashed == []
    keys = [key for key, _ in open_at(folder).memory.entries()]
    assert keys == sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))


def damaged(path: Path, kind: str) -> bytes:
    whole = path.read_bytes()
    if kind == "cut":
        return whole[: len(whole) // 2]
    if kind == "flipped":
        place = len(whole) // 4
        return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    return {"empty": b"", "json": b'{"x.csv": 1}', "other table": b""}[kind]


@pytest.mark.parametrize("kind", ["cut", "flipped", "empty", "json", "other table"])
def test_a_damaged_memory_of_hashes_is_ignored_and_mended(folder: Path, open_at: Open, kind: str) -> None:
    whole = open_at(folder).listing_hash()
    path = open_at(folder).memory.path
    if kind == "other table":
        pq.write_table(pa.table({"key": ["x"]}), path)
    else:
        path.write_bytes(damaged(path, kind))
    assert open_at(folder).listing_hash() == whole
    assert len(list(open_at(folder).memory.entries())) == 400


def test_what_killed_processes_left_is_removed_after_a_day(folder: Path, open_at: Open) -> None:
    memory = open_at(folder).memory
    memory.path.parent.mkdir(parents=True, exist_ok=True)
    old, new = (memory.path.with_name(f".{memory.path.stem}.{name}") for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    open_at(folder).listing_hash()
    assert not old.exists()
    assert new.exists()


def test_order_and_hash_do_not_depend_on_threads(
    folder: Path, open_at: Open, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for threads in (1, 2, 16):
        monkeypatch.setattr(parallel.os, "cpu_count", lambda threads=threads: threads)
        open_at(folder).memory.forget()
        seen.add((open_at(folder).listing_hash(), tuple(read(folder).column("source"))))
    ((_, sources),) = seen
    assert list(sources) == sorted(sources)


def test_hashing_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    size = 64 << 20
    (tmp_path / "x.csv").touch()
    os.truncate(tmp_path / "x.csv", size)
    tracemalloc.start()
    try:
        combined_hash(listed([Part(["x.csv"], [str(tmp_path / "x.csv")], [])], Memory(str(tmp_path))))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert content_hash_file(tmp_path / "x.csv") == content_hash(bytes(size))


def test_parts_are_cut_between_rows_by_bytes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PIECE_BYTES", 10)
    sizes, rows = [4, 4, 4, 30, 1, 8, 9], [0, 0, 1, 2, 3, 3, 5]
    part = Part(list("abcdefg"), list("abcdefg"), rows, table={"source": list("uvwxyz")})
    part.seen = [Seen(size, 0, "h") for size in sizes]
    pieces = list(cut(part))
    assert [("".join(piece.keys), "".join(piece.table["source"]), piece.rows) for piece in pieces] == [
        ("ab", "u", [0, 0]),
        ("c", "v", [0]),
        ("d", "w", [0]),
        ("ef", "xy", [0, 0]),
        ("g", "z", [0]),
    ]


def test_a_file_that_may_not_be_read_is_refused_by_name(
    folder: Path, open_at: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denied by hand: tests may run as root, whom nothing is denied."""
    true_open = os.open

    def denied(path: str, *args: Any, **keys: Any) -> int:
        if str(path).endswith("1/100.png"):
            raise PermissionError(13, "Permission denied", path)
        return true_open(path, *args, **keys)

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(RequestError, match=r"1/100\.png cannot be read: Permission denied"):
        open_at(folder).listing_hash()


@pytest.mark.parametrize("change", ["content", "vanished", "grown", "same size and time"])
def test_a_file_that_changes_between_listing_and_reading_is_refused_by_name(
    folder: Path, read: Any, open_at: Open, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    open_at(folder).listing_hash()
    file = folder / "1" / "100.png"
    true_parts = listing.read_parts
    if change == "same size and time":  # the memory takes it for unchanged: only its content tells
        state = file.stat()
        file.write_bytes(b"001")
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:

        def between(parts: Any, on_stale: Any) -> Any:
            parts = list(parts)
            if change == "vanished":
                file.unlink()
            else:
                file.write_bytes(b"abc" if change == "content" else b"100 and more")
            return true_parts(parts, on_stale)

        monkeypatch.setattr("ssl_tasks.sources.folders.read_parts", between)
    with pytest.raises(StageError, match=r"1/100\.png changed while it was read; run again when it rests"):
        read(folder)
    monkeypatch.undo()
    assert len(read(folder).rows) == (399 if change == "vanished" else 400)  # a second run is not refused again
