"""The order of a walk, what it passes over, and links."""

import os
from collections import Counter
from pathlib import Path

import pytest

from ssl_tasks.errors import RequestError
from ssl_tasks.sources import walk as walk_file
from ssl_tasks.sources.walk import walk


def found(root: Path, *suffixes: str) -> list[str]:
    return list(walk(str(root), suffixes or (".csv",)))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("few", [walk_file.FEW, 7])
def test_files_come_in_the_order_of_their_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Also where a folder has more names than are held as strings; `a-b` and `a.b` stand around the slash of `a/`."""
    monkeypatch.setattr(walk_file, "FEW", few)
    names = [f"{a}{b}/{c}.csv" for a in "aé" for b in ("", "-b", ".b", "0", "/x", "/x.csv") for c in range(250)]
    touch(tmp_path, *names, "a.csv", "a-.csv", "Z.csv", "\U0001f600.csv", "\uffee.csv")
    expected = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.csv") if path.is_file())
    assert len(expected) == 3005
    assert found(tmp_path) == expected
    assert expected == sorted(expected, key=str.encode)  # Arrow sorts bytes, Python characters: the same for UTF-8


def test_hidden_files_are_passed_over_and_other_endings_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "x.csv", "Y.CSV", ".z.csv", ".git/x.csv", "__MACOSX/x.csv", "n.txt", "d/n.TXT", "d/README", "._x.csv"
    )
    ignored: Counter[str] = Counter()
    assert list(walk(str(tmp_path), (".csv",), ignored)) == ["Y.CSV", "x.csv"]
    assert ignored == {".txt": 2, "no suffix": 1, "hidden": 4}


def test_names_with_a_suffix_of_their_own_do_not_fill_the_memory(tmp_path: Path) -> None:
    touch(tmp_path, *(f"scan.{number:04d}" for number in range(300)))
    ignored: Counter[str] = Counter()
    assert list(walk(str(tmp_path), (".csv",), ignored)) == []
    assert len(ignored) == 101
    assert ignored.total() == 300


def test_a_link_back_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "data/a/a.csv", "data/b/b.csv")
    (tmp_path / "data" / "a" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "a" / "self").symlink_to(".")
    assert found(tmp_path / "data") == ["a/a.csv", "b/b.csv"]


def test_links_to_other_folders_are_followed_each_once(tmp_path: Path) -> None:
    touch(tmp_path, "one/x.csv", "two/n.txt", "data/n.txt")
    for link, target in (("data/a", "one"), ("data/b", "one"), ("one/to", "two"), ("two/fro", "one")):
        (tmp_path / link).symlink_to(tmp_path / target)
    assert found(tmp_path / "data") == ["a/x.csv", "b/x.csv"]


def test_pipes_are_passed_over_and_links_to_nowhere_are_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "lost.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.csv").symlink_to(tmp_path / "circle.csv")
    ignored: Counter[str] = Counter()
    assert list(walk(str(tmp_path), (".csv",), ignored)) == ["circle.csv", "lost.csv"]
    assert ignored == {".csv": 1}


def test_a_name_that_is_not_utf8_is_refused_and_shown(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.csv", "wb") as stream:
        stream.write(b"x\n1\n")
    with pytest.raises(RequestError, match=r"caf\\udce9\.csv' is not UTF-8") as refused:
        found(tmp_path)
    str(refused.value).encode()


def test_a_folder_that_cannot_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be lost without a word. Denied here by hand: tests may run as root, whom nothing is denied."""
    touch(tmp_path, "open/x.csv", "closed/x.csv")
    scan = os.scandir

    def denied(folder: str) -> object:
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(RequestError, match=r"folder '.*closed' cannot be read: Permission denied"):
        found(tmp_path)
