"""Tars: WebDataset shards, packed folders, and archives that are cut."""

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.sources import tars

Read = Callable[..., Any]
PNG = Callable[[int], bytes]


def pack(path: Path, members: Mapping[str, bytes] | list[tuple[str, bytes]], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode: Any = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode, **options) as tar:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz"])
def test_members_of_one_name_are_a_sample(tmp_path: Path, read: Read, png: PNG, name: str) -> None:
    described = {"label": 3, "group": "p1", "domain": "mr", "split": "validation", "text": "from json", "more": 1}
    long = "a" * 120
    pack(
        tmp_path / name,
        {
            "./000.jpg": png(0),
            "./000.cls": b" 7 \n",
            "./001.json": json.dumps(described).encode(),
            "./001.png": png(1),
            "./001.mask.png": png(11),
            "d/002.cls": b"cat",
            "d/002.left.png": png(2),
            "d/002.right.png": png(3),
            "d/002.txt": b"a cat\n",
            "d/002.npy": b"not read",
            f"{long}.png": png(4),
            "005.seg.png": png(15),
            "005.jpg": png(5),
        },
    )
    found = read(tmp_path / name)
    assert found.column("payload") == [png(0), png(1), png(2), png(4), png(5)]
    assert found.column("source") == [
        *(f"{name}#0:000.jpg", f"{name}#1:001.png", f"{name}#2:d/002.left.png", f"{name}#3:{long}.png"),
        f"{name}#4:005.jpg",
    ]
    assert found.column("label") == ["7", "3", "cat", None, None]
    assert found.column("mask") == [None, png(11), None, None, png(15)]
    assert found.column("text") == [None, "from json", "a cat", None, None]
    second = found.rows[1]
    assert (second["group_id"], second["domain"], second["split"]) == ("p1", "mr", "val")
    assert found.facts["ignored"] == {".npy": 1, ".png": 1}


def test_the_config_names_keys_of_the_json(tmp_path: Path, read: Read, png: PNG) -> None:
    pack(tmp_path / "x.tar", {"0.png": png(0), "0.json": b'{"kind": "a", "label": "b"}', "1.png": png(1)})
    assert read(tmp_path / "x.tar", label_column="kind").column("label") == ["a", None]
    with pytest.raises(RequestError, match=r"ingest\.label_column: the .json of x\.tar#0:0\.png has no key 'z'"):
        read(tmp_path / "x.tar", label_column="z")


def test_samples_without_an_image_are_counted(tmp_path: Path, read: Read, png: PNG) -> None:
    """As where labels stand apart from their images: what is not read is told."""
    pack(tmp_path / "x.tar", {"0.png": png(0), "1.png": png(1), "1.cls": b"1", "2.cls": b"0", "3.json": b"{"})
    found = read(tmp_path / "x.tar")
    assert found.column("label") == [None, "1"]
    assert found.facts["ignored"] == {".cls": 1, ".json": 1}


def test_a_member_that_stands_twice_is_read_twice(tmp_path: Path, read: Read, png: PNG) -> None:
    pack(tmp_path / "x.tar", [("0.png", png(0)), ("0.cls", b"a"), ("0.png", png(1)), ("0.cls", b"b")])
    found = read(tmp_path / "x.tar")
    assert list(zip(found.column("payload"), found.column("label"), strict=True)) == [(png(0), "a"), (png(1), "b")]
    assert len(set(found.column("source"))) == 2


@pytest.mark.parametrize(
    ("names", "roles", "labels"),
    [
        (["cat/1.png", "dog/1.png", "3.png"], ["label"], ["cat", "dog", None]),
        (["train/cat/1.png", "test/dog/1.png"], ["split", "label"], ["cat", "dog"]),
        (["set/train/cat/1.png", "set/test/dog/1.png", "set/README.txt"], ["ignore", "split", "label"], ["cat", "dog"]),
        (["set/cat/1.png", "set/dog/1.png"], ["ignore", "label"], ["cat", "dog"]),
        (["set/1.png", "set/2.png"], ["ignore", "label"], [None, None]),
        (["1.png", "2.png"], ["label"], [None, None]),
        (["train/cat/1.png", "train/dog/1.png"], ["split", "label"], ["cat", "dog"]),
        (["set/train/cat/1.png", "set/train/cat/2.png"], ["ignore", "split", "label"], ["cat", "cat"]),
    ],
)
def test_a_packed_folder_is_read_like_a_folder(
    tmp_path: Path, read: Read, names: list[str], roles: list[str], labels: list[str | None]
) -> None:
    pack(tmp_path / "x.tar.gz", {name: name.encode() for name in names})
    found = read(tmp_path / "x.tar.gz")
    assert found.facts["folders"] == roles
    assert found.column("label") == labels
    assert found.column("payload") == [name.encode() for name in names if name.endswith("png")]
    assert found.facts["ignored"] == ({".txt": 1} if "set/README.txt" in names else {})
    if "split" in roles:
        assert found.column("split") == ["train", "test" if "test/dog" in names[1] else "train"]


def test_a_folder_beside_packed_splits_that_is_none_is_refused(tmp_path: Path, read: Read) -> None:
    pack(tmp_path / "x.tar", {f"set/{name}/1.png": b"1" for name in ("train", "test", "extra")})
    with pytest.raises(RequestError, match=r"'test', 'train' .* 'extra' .* ingest\.folders=\[ignore, label\]"):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["scan.01.png", "scan.01.cls", "scan.02.png", "scan.02.cls"], r"scan\.01\.cls"),
        (["images/0.png", "images/1.png", "labels/0.cls", "labels/1.cls"], r"labels/0\.cls"),
        (["0.png", "1.png", "0.cls", "1.cls"], r"0\.cls"),
    ],
)
def test_labels_that_belong_to_no_image_are_refused_and_not_lost(
    tmp_path: Path, read: Read, names: list[str], first: str
) -> None:
    pack(tmp_path / "x.tar", dict.fromkeys(names, b"1"))
    with pytest.raises(RequestError, match=rf"x\.tar: member '{first}' belongs to no image"):
        read(tmp_path / "x.tar")
    assert set(read(tmp_path / "x.tar", folders=["group"]).column("label")) == {None}


def test_the_config_says_what_packed_folders_mean(tmp_path: Path, read: Read) -> None:
    pack(tmp_path / "x.tar", {"mr/a/1.png": b"1", "ct/b/2.png": b"2"})
    found = read(tmp_path / "x.tar", folders=["domain", "group"])
    assert [(row["domain"], row["group_id"]) for row in found.rows] == [("mr", "a"), ("ct", "b")]


@pytest.mark.parametrize(
    ("members", "keys", "message"),
    [
        ({"a/1.png": b"1"}, {"label_column": "x"}, r"ingest\.label_column: means nothing here, as the tars have no"),
        ({"1.png": b"1", "1.cls": b"1"}, {"folders": ["label"]}, r"ingest\.folders: means nothing here, as the tars h"),
        ({"1.png": b"1"}, {"image_column": "x"}, r"ingest\.image_column: means nothing for tars"),
    ],
)
def test_keys_that_mean_nothing_are_refused(
    tmp_path: Path, read: Read, members: dict[str, bytes], keys: dict[str, Any], message: str
) -> None:
    pack(tmp_path / "x.tar", members)
    with pytest.raises(RequestError, match=message):
        read(tmp_path / "x.tar", **keys)


def test_shards_in_order_with_the_split_of_their_names(tmp_path: Path, read: Read, png: PNG) -> None:
    for number, name in enumerate(["train-0001.tar", "train-0000.tar", "val/0.tar"]):
        pack(tmp_path / name, {"0.png": png(number), "0.cls": b"%d" % number})
    found = read(tmp_path)
    assert found.column("label") == ["1", "0", "2"]
    assert found.column("split") == ["train", "train", "val"]
    assert len(set(found.column("source"))) == 3


def test_hidden_members_and_other_files_are_told(tmp_path: Path, read: Read, png: PNG) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a/1.png", "a/._1.png", "__MACOSX/1.png", "a/1.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
        folder = tarfile.TarInfo("b")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    found = read(tmp_path / "x.tar")
    assert found.column("source") == ["x.tar#0:a/1.png"]
    assert found.facts["ignored"] == {"hidden": 2, ".mp4": 1}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_is_refused_and_not_lost(tmp_path: Path, read: Read, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a/1.png")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
        link = tarfile.TarInfo("a/2.png")
        link.type, link.linkname = kind, "a/1.png"
        tar.addfile(link)
    with pytest.raises(RequestError, match=r"x\.tar: member 'a/2\.png' is a link to 'a/1\.png'.*--hard-dereference"):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("0.json", b"{", r"x\.tar#0:0\.png: its \.json is not JSON"),
        ("0.json", b"[]", r"x\.tar#0:0\.png: its \.json is no object"),
        ("0.cls", b"\xff\xfe", r"x\.tar#0:0\.png: label: .* is not UTF-8 text"),
        ("0.json", b'{"split": "other"}', r"x\.tar#0:0\.png: split 'other' is not train"),
    ],
)
def test_a_broken_sidecar_is_refused_by_name(tmp_path: Path, read: Read, name: str, data: bytes, message: str) -> None:
    pack(tmp_path / "x.tar", {"0.png": b"1", name: data})
    with pytest.raises(RequestError, match=message):
        read(tmp_path / "x.tar")


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path, read: Read) -> None:
    pack(tmp_path / "x.tar", {"caf\udce9.png": b"1"}, format=tarfile.GNU_FORMAT)
    with pytest.raises(RequestError, match=r"the member's name 'caf\\udce9\.png' is not UTF-8"):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize("other", ["cls", "mp4"])
@pytest.mark.parametrize(
    ("blocks", "last"),
    [
        (19.2, "member '004.png'"),  # within the bytes of 004.cls
        (16.2, "member '003.cls'"),  # within the header of 004.png
        (16, "member '003.cls'"),  # between two members: Python's reader would take it for the end
        (1.1, "its begin"),
    ],
)
def test_a_tar_that_is_cut_is_refused_with_the_last_good_member(
    tmp_path: Path, read: Read, other: str, blocks: float, last: str
) -> None:
    """Each member takes a block of 512 bytes for its header and one for its content."""
    names = [f"{number:03d}.{kind}" for number in range(20) for kind in ("png", other)]
    pack(tmp_path / "x.tar", {name: name.encode() for name in names})
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[: int(blocks * 512)])
    with pytest.raises(RequestError, match=rf"x\.tar is damaged or cut short after {last.replace('cls', other)}"):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize("name", ["x.tar", "x.tgz"])
def test_tars_put_one_behind_the_other_are_refused(tmp_path: Path, read: Read, png: PNG, name: str) -> None:
    pack(tmp_path / name, {"0.png": png(0)})
    (tmp_path / name).write_bytes(2 * (tmp_path / name).read_bytes())
    with pytest.raises(RequestError, match=r"after member '0\.png': more stands behind its end mark"):
        read(tmp_path / name)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_packed_tar_that_is_damaged_is_refused(tmp_path: Path, read: Read, damage: str) -> None:
    pack(tmp_path / "x.tgz", {f"{number:03d}.png": os.urandom(2000) for number in range(200)})
    data = bytearray((tmp_path / "x.tgz").read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    (tmp_path / "x.tgz").write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    with pytest.raises(RequestError, match=r"x\.tgz is damaged or cut short after member '\d+\.png'"):
        read(tmp_path / "x.tgz")


NO_TARS = {"empty": b"", "text": b"no tar at all" * 100, "gzip": gzip.compress(b"no tar" * 1000)}


@pytest.mark.parametrize("data", NO_TARS.values(), ids=NO_TARS)
def test_what_is_no_tar_is_refused(tmp_path: Path, read: Read, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(RequestError, match=r"x\.tar is damaged or cut short after its begin"):
        read(tmp_path / "x.tar")


def test_a_tar_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, open_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "BATCH_ROWS", 1)
    pack(tmp_path / "x.tar", {f"{number:03d}.png": b"x" for number in range(300)})
    samples = open_at(tmp_path / "x.tar").samples()
    next(samples)
    os.utime(tmp_path / "x.tar", (1, 1))
    with pytest.raises(StageError, match=r"x\.tar changed while it was read"):
        list(samples)


def test_many_members_need_little_memory(tmp_path: Path, open_at: Any) -> None:
    """Python's own reader keeps all of them."""
    pack(tmp_path / "x.tar", {f"{number:05d}.{kind}": b"x" for number in range(5000) for kind in ("png", "cls")})
    tracemalloc.start()
    try:
        assert sum(rows.num_rows for rows, _ in open_at(tmp_path / "x.tar").samples()) == 5000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_numbers_and_several_labels_of_the_json(tmp_path: Path, read: Read, png: PNG) -> None:
    described = b'{"age": 3.5, "seen": ["a", "b"], "number": 1, "labels": "x"}'
    pack(tmp_path / "x.tar", {"0.png": png(0), "0.json": described, "1.png": png(1)})
    found = read(tmp_path / "x.tar", number_column="age", labels_column="seen")
    assert found.column("number") == [3.5, None]
    assert found.column("labels") == [["a", "b"], None]
    assert read(tmp_path / "x.tar").column("number") == [None, None]
