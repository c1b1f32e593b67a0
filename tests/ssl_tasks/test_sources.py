"""The files below a path, the memory of their hashes, and the local copies of what stands elsewhere."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from pyarrow import fs

from ssl_tasks.errors import RequestError
from ssl_tasks.sources import content_hash, content_hash_file, find_files, listing_hash
from ssl_tasks.store.cache import LocalCache, cache_home


def found(root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in find_files(str(root), (".csv",))[1]]


def test_a_link_back_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / f"{name}.csv").write_text("x\n1\n")
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "a" / "self").symlink_to(".")
    assert found(tmp_path / "data") == ["a/a.csv", "b/b.csv"]


def test_links_to_other_folders_are_followed_each_once(tmp_path: Path) -> None:
    for name in ("data", "one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "x.csv").write_text("x\n1\n")
    for link, target in (("data/a", "one"), ("data/b", "one"), ("one/to", "two"), ("two/fro", "one")):
        (tmp_path / link).symlink_to(tmp_path / target)
    assert found(tmp_path / "data") == ["a/x.csv", "b/x.csv"]


def test_a_name_that_is_not_utf8_is_refused_and_shown(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.csv", "wb") as stream:
        stream.write(b"x\n1\n")
    with pytest.raises(RequestError, match=r"caf\\udce9\.csv' is not UTF-8") as refused:
        find_files(str(tmp_path), (".csv",))
    str(refused.value).encode()


@pytest.mark.parametrize("memory", [b'{"x.csv": [4', b"\xff\xfe", b"[]", b'{"x.csv": 1}'])
def test_a_damaged_memory_of_hashes_is_ignored_and_mended(tmp_path: Path, memory: bytes) -> None:
    (tmp_path / "x.csv").write_text("x\n1\n")
    root, files = find_files(str(tmp_path), (".csv",))
    before = set((cache_home() / "sources").glob("*.json"))
    whole = listing_hash(root, files)
    (written,) = set((cache_home() / "sources").glob("*.json")) - before
    written.write_bytes(memory)
    assert listing_hash(root, files) == whole
    assert json.loads(written.read_text())["x.csv"][2] == content_hash(b"x\n1\n")


def test_hashing_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    size = 64 << 20
    (tmp_path / "x.csv").touch()
    os.truncate(tmp_path / "x.csv", size)
    tracemalloc.start()
    try:
        listing_hash(tmp_path, [tmp_path / "x.csv"])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert content_hash_file(tmp_path / "x.csv") == content_hash(bytes(size))


def test_a_cut_local_copy_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"whole")
    cache = LocalCache(tmp_path / "cache")
    copy = cache.get(fs.LocalFileSystem(), str(tmp_path / "x.bin"), "0" * 64)
    copy.write_bytes(b"who")
    assert cache.get(fs.LocalFileSystem(), str(tmp_path / "x.bin"), "0" * 64).read_bytes() == b"whole"


def test_a_whole_local_copy_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"whole")
    cache = LocalCache(tmp_path / "cache")
    copy = cache.get(fs.LocalFileSystem(), str(tmp_path / "x.bin"), "0" * 64)
    copy.write_bytes(b"local")
    assert cache.get(fs.LocalFileSystem(), str(tmp_path / "x.bin"), "0" * 64).read_bytes() == b"local"
