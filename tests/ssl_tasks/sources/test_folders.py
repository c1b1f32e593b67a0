"""Images in folders: what each level of folders means."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.config import SourceConfig

Read = Callable[..., Any]


def fill(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"%d" % number)


def test_class_folders(tmp_path: Path, read: Read) -> None:
    fill(tmp_path, "dog/1.png", "cat/1.JPG", "cat/deep/2.png", "loose.png", "notes.txt", "cat/notes.txt")
    found = read(tmp_path)
    assert found.column("source") == ["cat/1.JPG", "cat/deep/2.png", "dog/1.png", "loose.png"]
    assert found.column("label") == ["cat", "cat", "dog", None]
    assert found.column("payload") == [b"1", b"2", b"0", b"3"]
    assert found.facts == {"kind": "folders", "files": 4, "ignored": {".txt": 2}, "folders": ["label"]}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/a/1.png", "test/b/2.png"], ["test", "train"]),
        (["Training/a/1.png", "validation/b/2.png", "x.png"], ["train", "val", None]),
        (["dev/a/1.png", "valid/a/1.png", "testing/a/1.png"], ["val", "test", "val"]),
        (["train/a/1.png", "docs/read.txt"], ["train"]),
        (["unlabeled/1.png", "train/a/1.png"], ["train", "train"]),
    ],
)
def test_split_folders_are_recognized(tmp_path: Path, read: Read, names: list[str], splits: list[str]) -> None:
    fill(tmp_path, *names)
    found = read(tmp_path)
    assert found.facts["folders"] == ["split", "label"]
    assert found.column("split") == splits
    for source, label in zip(found.column("source"), found.column("label"), strict=True):
        assert label == (source.split("/")[1] if source.count("/") == 2 else None)


@pytest.mark.parametrize(
    "names",
    [
        ["train/a/1.png", "cat/2.png"],  # a class called train
        ["train/a/1.png", "loose.png"],
        ["a/train/1.png", "b/test/2.png"],
    ],
)
def test_other_folders_are_classes(tmp_path: Path, read: Read, names: list[str]) -> None:
    fill(tmp_path, *names)
    found = read(tmp_path)
    assert found.facts["folders"] == ["label"]
    assert set(found.column("split")) == {None}
    expected = [name.split("/")[0] if "/" in name else None for name in sorted(names)]
    assert found.column("label") == expected


def test_a_folder_beside_splits_that_is_none_is_refused(tmp_path: Path, read: Read) -> None:
    fill(tmp_path, "train/a/1.png", "test/b/2.png", "extra/3.png", "more/4.png", "docs/read.txt")
    message = r"ingest\.folders: 'test', 'train' are called as splits are, and 'extra' .* set ingest\.folders=\[label\]"
    with pytest.raises(RequestError, match=message):
        read(tmp_path)
    assert read(tmp_path, folders=["label"]).column("label") == ["extra", "more", "test", "train"]


def test_the_levels_mean_what_the_config_says(tmp_path: Path, read: Read) -> None:
    fill(tmp_path, "mnist/train/7/1.png", "usps/test/8/deep/2.png", "usps/test/3.png")
    found = read(tmp_path, folders=["domain", "split", "label"])
    assert [(row["domain"], row["split"], row["label"]) for row in found.rows] == [
        ("mnist", "train", "7"),
        ("usps", "test", None),
        ("usps", "test", "8"),
    ]
    assert read(tmp_path, folders=["group", "ignore", "label"]).column("group_id") == ["mnist", "usps", "usps"]
    assert set(read(tmp_path, folders=[]).rows[0]) == {"source", "content_id", "payload"}


def test_a_folder_where_a_split_is_expected_is_refused_by_name(tmp_path: Path, read: Read) -> None:
    fill(tmp_path, "train/1.png", "extra/2.png")
    with pytest.raises(RequestError, match=r"ingest\.folders: the folder 'extra' of extra/2\.png"):
        read(tmp_path, folders=["split"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["label", "ignore", "ignore", "label"], "label stands twice"),
        (["labl"], "'labl' is none of split, label, group, domain, ignore"),
        ("label", "expected auto, or a list of split, label, group, domain, ignore"),
        (None, "expected auto, or a list of"),
        ([["label"]], r"\['label'\] is none of"),
    ],
)
def test_unknown_roles_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SourceConfig(folders=value)


def test_one_image_is_a_source_too(tmp_path: Path, read: Read) -> None:
    fill(tmp_path, "cat/1.png", "cat/2.png")
    found = read(tmp_path / "cat" / "1.png")
    assert found.column("source") == ["1.png"]


def test_a_link_to_nowhere_is_a_row_without_payload(tmp_path: Path, read: Read, open_at: Any) -> None:
    fill(tmp_path, "a/1.png")
    for name in ("2.png", "3.png"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "nowhere")
    before = open_at(tmp_path).listing_hash()
    found = read(tmp_path)
    assert found.column("payload") == [b"0", None, None]
    assert len(set(found.column("content_id"))) == 3
    (tmp_path / "nowhere").write_bytes(b"here")
    assert open_at(tmp_path).listing_hash() != before
    assert read(tmp_path).column("payload") == [b"0", b"here", b"here"]


def test_links_that_no_system_can_follow_lead_nowhere(tmp_path: Path, read: Read) -> None:
    fill(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "3.png").symlink_to("x" * 300)
    assert read(tmp_path).column("payload") == [b"0", None, None]


def test_large_and_empty_files_are_whole(tmp_path: Path, read: Read) -> None:
    (tmp_path / "large.png").write_bytes(bytes(range(256)) * 50_000)
    (tmp_path / "none.png").touch()
    (tmp_path / "small.png").write_bytes(b"x")
    assert [len(data) for data in read(tmp_path).column("payload")] == [12_800_000, 0, 1]
