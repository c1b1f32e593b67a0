"""Lists of files: CSV, TSV and JSON lines."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.sources import lists

Read = Callable[..., Any]
PNG = Callable[[int], bytes]


def test_every_role_has_the_column_of_its_name(tmp_path: Path, pictures: Path, read: Read, png: PNG) -> None:
    (tmp_path / "list.csv").write_text(
        "path,label,group,domain,split,mask,text,else\n"
        "pictures/0.png, cat ,p1,mr,Training,pictures/5.png,a cat,1\n"
        'pictures/1.png,3,,ct,dev,,"two\nlines",2\n'
    )
    found = read(tmp_path / "list.csv")
    first, second = found.rows
    assert first == {
        "source": "list.csv#0 -> pictures/0.png",
        "content_id": first["content_id"],
        "label": "cat",
        "group_id": "p1",
        "domain": "mr",
        "split": "train",
        "text": "a cat",
        "mask": png(5),
        "payload": png(0),
    }
    assert (second["label"], second["group_id"], second["split"]) == ("3", None, "val")
    assert (second["mask"], second["text"], second["payload"]) == (None, "two\nlines", png(1))
    assert found.facts["columns"] == {
        "image": "path",
        "mask": "mask",
        "label": "label",
        "group": "group",
        "domain": "domain",
        "split": "split",
        "text": "text",
    }
    assert found.facts["files"] == 4


def test_the_config_names_other_columns(tmp_path: Path, pictures: Path, read: Read, png: PNG) -> None:
    (tmp_path / "list.tsv").write_text("scan\tlabel\tkind\tseg\npictures/0.png\tx\ta\tpictures/1.png\n")
    keys = {"image_column": "scan", "label_column": "kind", "mask_column": "seg"}
    (row,) = read(tmp_path / "list.tsv", **keys).rows
    assert (row["label"], row["mask"], row["payload"]) == ("a", png(1), png(0))


@pytest.mark.parametrize("role", ["image", "mask", "text", "label", "labels", "number", "group", "domain", "split"])
@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_named_column_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, read: Read, role: str, name: str
) -> None:
    (tmp_path / name).write_text("path,size\nx.png,3\n" if name.endswith("csv") else '{"path": "x.png", "size": 3}\n')
    with pytest.raises(RequestError, match=rf"ingest\.{role}_column: list.* has no column 'z' \(it has path, size\)"):
        read(tmp_path / name, **{f"{role}_column": "z"})


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_mask_column_of_words_is_ignored_with_a_warning_or_refused_where_it_was_asked_for(
    tmp_path: Path, pictures: Path, read: Read, name: str
) -> None:
    rows = [{"path": f"pictures/{number}.png", "mask": "yes" if number else "no"} for number in range(6)]
    lines = ["path,mask", *(f"{row['path']},{row['mask']}" for row in rows)]
    (tmp_path / name).write_text("\n".join(lines if name.endswith("csv") else map(json.dumps, rows)) + "\n")
    found = read(tmp_path / name)
    said = "none of the 6 values of column 'mask' is a file (the first is 'no')"
    assert found.facts["warnings"] == [f"{said}, so it is ignored; if these are paths to masks, they lead nowhere"]
    assert found.facts["columns"] == {"image": "path"}
    assert found.facts["missing"] == {}
    with pytest.raises(RequestError, match=f"ingest.mask_column: {re.escape(said)}"):
        read(tmp_path / name, mask_column="mask")


def test_some_masks_that_are_not_there_are_counted(tmp_path: Path, pictures: Path, read: Read) -> None:
    lines = [f"pictures/{number}.png,{'pictures/0.png' if number == 5 else 'gone.png'}" for number in range(6)]
    (tmp_path / "list.csv").write_text("\n".join(["path,mask", *lines * 2]) + "\n")
    facts = read(tmp_path / "list.csv", mask_column="mask").facts
    assert (facts["missing"], facts["columns"]["mask"]) == ({"mask": 10}, "mask")
    assert "warnings" not in facts


def test_a_list_without_paths_is_refused(tmp_path: Path, read: Read) -> None:
    (tmp_path / "list.csv").write_text("x,y\n1,2\n")
    with pytest.raises(RequestError, match=r"list\.csv has no column with paths.*it has x, y.*ingest\.image_column"):
        read(tmp_path / "list.csv")


def test_paths_are_relative_to_the_list_or_absolute(tmp_path: Path, pictures: Path, read: Read, png: PNG) -> None:
    lines = ["file_name", "../pictures/0.png", str(pictures / "1.png")]
    for folder in ("a", "b"):
        (tmp_path / "lists" / folder).mkdir(parents=True)
    (tmp_path / "lists" / "a" / "list.csv").write_text("file_name\n../../pictures/2.png\n")
    (tmp_path / "list.csv").write_text("\n".join(lines[:1] + lines[1:]).replace("../", ""))
    assert read(tmp_path / "list.csv").column("payload") == [png(0), png(1)]
    (tmp_path / "lists" / "b" / "list.csv").write_text("file_name\n../../pictures/3.png\n")
    found = read(tmp_path / "lists")
    assert found.column("payload") == [png(2), png(3)]
    assert found.column("source") == [
        "a/list.csv#0 -> ../../pictures/2.png",
        "b/list.csv#0 -> ../../pictures/3.png",
    ]


def test_spaces_beside_commas_do_not_hide_a_column(tmp_path: Path, pictures: Path, read: Read) -> None:
    (tmp_path / "list.csv").write_text('path, label , split\npictures/0.png, "a, b", train\n')
    found = read(tmp_path / "list.csv")
    assert (found.column("label"), found.column("split")) == (["a, b"], ["train"])


def test_a_value_may_be_long(tmp_path: Path, pictures: Path, read: Read) -> None:
    (tmp_path / "list.csv").write_text(f"path,text\npictures/0.png,{'x' * 200_000}\n")
    assert read(tmp_path / "list.csv").column("text") == ["x" * 200_000]


def test_json_lines_may_lack_keys_and_hold_numbers_and_lists(
    tmp_path: Path, pictures: Path, read: Read, png: PNG
) -> None:
    lines: list[dict[str, Any]] = [
        {"image": "pictures/0.png"},
        {"image": "pictures/1.png", "label": 7},
        {"image": "pictures/2.png", "label": ["b", 2]},
        {"image": "pictures/3.png", "label": 2.0, "group": True},
        {"label": "x"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = read(tmp_path / "list.jsonl")
    assert found.column("label") == [None, "7", None, "2", "x"]
    assert found.column("labels") == [None, None, ["b", "2"], None, None]
    assert found.column("group_id") == [None, None, None, "True", None]
    assert found.column("payload") == [png(0), png(1), png(2), png(3), None]
    assert found.facts["columns"] == {"image": "image", "label": "label", "group": "group"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.jsonl", '{"path": "a"}\n{"path": \n', r"list\.jsonl, line 2: not JSON"),
        ("list.jsonl", '{"path": "a"}\n["b"]\n', r"list\.jsonl, line 2: expected an object"),
        ("list.jsonl", '{"path": 3}\n', r"list\.jsonl#0: 'path' is 3, and a path is expected"),
        ("list.jsonl", '{"path": "a", "group": {"b": 1}}\n', r"list\.jsonl#0: group: .* is not a single value"),
        ("list.jsonl", '{"path": "a\\ud800"}\n', r"list\.jsonl#0 names 'a\\ud800', which is not UTF-8"),
        ("list.jsonl", '{"path": "a", "label": "\\ud800"}\n', r"list\.jsonl#0: label: '\\ud800' is not UTF-8 text"),
        ("list.csv", "path,label\na,1\n\nb\n", r"list\.csv, line 4: 1 values, and the header has 2"),
        ("list.csv", "path,path\na,1\n", r"list\.csv has two columns 'path'"),
        ("list.csv", "", r"list\.csv has no header line"),
        ("list.csv", 'path\n"a\n', r"list\.csv is not a list that can be read"),
        ("list.csv", "path\ns3://bucket/a.png\n", r"list\.csv#0 names 's3://bucket/a\.png'"),
        ("list.csv", "path,split\na,other\n", r"list\.csv#0: split 'other' is not train, val or test"),
    ],
)
def test_a_broken_row_is_refused_by_name(tmp_path: Path, read: Read, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        read(tmp_path / name)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path, read: Read) -> None:
    (tmp_path / "list.csv").write_bytes(b"path\ncaf\xe9.png\n")
    with pytest.raises(RequestError, match=r"list\.csv is not a list that can be read"):
        read(tmp_path / "list.csv")


def test_a_listed_file_that_is_not_there_is_a_row_without_payload(
    tmp_path: Path, pictures: Path, read: Read, png: PNG
) -> None:
    names = ["pictures/0.png", "lost.png", "lost.png", "pictures", "0.png/x", "a\0b"]
    (tmp_path / "list.csv").write_text("path,mask\n" + "".join(f"{name},gone.png\n" for name in names))
    found = read(tmp_path / "list.csv")
    assert found.column("payload") == [png(0), *[None] * 5]
    assert len(set(found.column("content_id"))) == 6
    assert found.column("mask") == [None] * 6
    assert found.facts["missing"] == {"payload": 5}


def test_a_listed_name_that_no_system_can_have_is_a_row_without_payload(
    tmp_path: Path, pictures: Path, read: Read
) -> None:
    (pictures / "circle.png").symlink_to(pictures / "circle.png")
    names = ["pictures/0.png", f"pictures/{'x' * 300}.png", "pictures/circle.png"]
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{name}\n" for name in names))
    found = read(tmp_path / "list.csv")
    assert [payload is None for payload in found.column("payload")] == [False, True, True]
    assert found.facts["missing"] == {"payload": 2}


def test_the_hash_follows_the_list_and_the_files_that_it_names(
    tmp_path: Path, pictures: Path, open_at: Any, png: PNG
) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path,label\npictures/0.png,a\npictures/lost.png,a\n")
    hashes = [open_at(file).listing_hash()]
    (pictures / "0.png").write_bytes(b"changed")
    hashes.append(open_at(file).listing_hash())
    (pictures / "lost.png").write_bytes(b"found")
    hashes.append(open_at(file).listing_hash())
    file.write_text(file.read_text().replace(",a\n", ",b\n"))
    hashes.append(open_at(file).listing_hash())
    (pictures / "5.png").unlink()  # not listed
    assert open_at(file).listing_hash() == hashes[-1]
    assert len(set(hashes)) == 4


def test_an_unchanged_list_needs_no_file_to_be_read_again(
    tmp_path: Path, pictures: Path, open_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"pictures/{number}.png" for number in (3, 1, 4, 1, 5, 2)]  # in no order, and one twice
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
    first = open_at(tmp_path / "list.csv").listing_hash()
    monkeypatch.setattr("ssl_tasks.sources.listing._read", None)
    assert open_at(tmp_path / "list.csv").listing_hash() == first


def test_rows_do_not_depend_on_how_they_are_batched(
    tmp_path: Path, pictures: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"pictures/{number % 6}.png,{number},pictures/{number % 5}.png" for number in range(50)]
    (tmp_path / "list.csv").write_text("path,label,mask\n" + "\n".join(names) + "\n")
    whole = read(tmp_path / "list.csv").rows
    monkeypatch.setattr(lists, "BATCH_ROWS", 7)
    monkeypatch.setattr("ssl_tasks.sources.listing.PIECE_BYTES", 300)
    assert read(tmp_path / "list.csv").rows == whole
    assert [row["label"] for row in whole] == [str(number) for number in range(50)]


@pytest.mark.parametrize("what", ["list", "picture"])
def test_a_list_or_a_listed_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, pictures: Path, open_at: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(lists, "BATCH_ROWS", 2)
    monkeypatch.setattr("ssl_tasks.sources.listing.PIECE_BYTES", 1)
    names = [f"pictures/{number % 6}.png" for number in range(1200)]
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(names) + "\n")
    samples = open_at(tmp_path / "list.csv").samples()
    next(samples)
    changed = tmp_path / ("list.csv" if what == "list" else "pictures/5.png")
    changed.write_bytes(changed.read_bytes() + b"more")
    os.utime(changed, (1, 1))
    with pytest.raises(StageError, match=rf"{changed.name} changed while it was read"):
        list(samples)


def test_file_names_say_the_split_where_all_do(tmp_path: Path, pictures: Path, read: Read) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train-00000.csv").write_text("path,split\n../pictures/0.png,\n../pictures/1.png,val\n")
    (folder / "my_test_images.csv").write_text("path\n../pictures/2.png\n")
    assert read(folder).column("split") == ["test", "train", "val"]
    (folder / "more.csv").write_text("path\n../pictures/3.png\n")
    assert read(folder).column("split") == [None, None, None, "val"]


def test_a_later_list_without_a_column_is_refused(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.csv").write_text("path,label\nx.png,1\n")
    (tmp_path / "b.csv").write_text("path,kind\ny.png,1\n")
    with pytest.raises(RequestError, match=r"b\.csv lacks the column 'label' of the file before it"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_numbers_and_several_labels_are_read_where_their_columns_are_named(
    tmp_path: Path, pictures: Path, read: Read, name: str
) -> None:
    rows = [("1.5", "cat;dog"), ("-2e3", " dog ; dog;"), ("", ""), ("NaN", ";"), ("7", "a b")]
    if name.endswith("csv"):
        lines = ["path,age,seen,number,labels", *(f"pictures/{i}.png,{a},{b},9,x" for i, (a, b) in enumerate(rows))]
    else:
        values: list[Any] = [
            (1.5, ["cat", "dog"]),
            (-2e3, ["dog", "dog"]),
            (None, None),
            (float("nan"), []),
            (7, "a b"),
        ]
        keys = ("path", "age", "seen", "number", "labels")
        lines = [
            json.dumps(dict(zip(keys, (f"pictures/{i}.png", a, b, 9, "x"), strict=True)))
            for i, (a, b) in enumerate(values)
        ]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    found = read(tmp_path / name, number_column="age", labels_column="seen")
    assert found.column("number") == [1.5, -2000.0, None, None, 7.0]
    assert found.column("labels") == [["cat", "dog"], ["dog"], None, [], ["a b"]]
    assert found.facts["columns"] | {"number": "age", "labels": "seen"} == found.facts["columns"]
    unnamed = read(tmp_path / name)
    assert unnamed.column("number") == unnamed.column("labels") == [None] * 5
    assert read(tmp_path / name, labels_column="seen", labels_separator=" ").column("labels")[4] == ["a", "b"]


@pytest.mark.parametrize(("value", "message"), [("tall", "'tall' is not a number"), ("inf", "not a finite number")])
def test_what_is_no_number_is_refused_by_its_row(
    tmp_path: Path, pictures: Path, read: Read, value: str, message: str
) -> None:
    (tmp_path / "list.csv").write_text(f"path,age\npictures/0.png,1\npictures/1.png,{value}\n")
    with pytest.raises(RequestError, match=rf"list\.csv#1: number: .*{message}"):
        read(tmp_path / "list.csv", number_column="age")


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
def test_a_column_for_each_class(tmp_path: Path, pictures: Path, read: Read, name: str) -> None:
    if name.endswith("csv"):
        lines = ["path,cat,dog", "pictures/0.png,1,0", "pictures/1.png,1,TRUE", "pictures/2.png,0,", "pictures/3.png,,"]
    else:
        values: list[Any] = [(1, 0), (True, 1.0), (False, None), (None, None)]
        lines = [json.dumps({"path": f"pictures/{i}.png", "cat": a, "dog": b}) for i, (a, b) in enumerate(values)]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    found = read(tmp_path / name, class_columns=["dog", "cat"])
    assert found.column("labels") == [["cat"], ["dog", "cat"], [], None]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_columns": ["cat", "cow"]}, r"ingest\.class_columns: list\.csv has no column 'cow'"),
        ({"class_columns": ["age"]}, r"list\.csv#0: age: '7' is neither 1 nor 0"),
        ({"class_columns": ["cat"], "labels_column": "age"}, "in labels_column already"),
        ({"class_columns": ["cat", "cat"]}, "'cat' stands twice"),
    ],
)
def test_columns_of_classes_that_are_none_are_refused(
    tmp_path: Path, pictures: Path, read: Read, keys: dict[str, Any], message: str
) -> None:
    (tmp_path / "list.csv").write_text("path,cat,age\npictures/0.png,1,7\n")
    with pytest.raises((RequestError, ValueError), match=message):
        read(tmp_path / "list.csv", **keys)
