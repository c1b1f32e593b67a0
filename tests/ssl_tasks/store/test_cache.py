"""Local copies of files that stand elsewhere."""

from pathlib import Path

from pyarrow import fs

from ssl_tasks.store.cache import LocalCache


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
