"""Folders of `save_to_disk`, put together here as `datasets` 5.2 writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ssl_tasks.errors import RequestError

Read = Callable[..., Any]
PNG = Callable[[int], bytes]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["a", "b", "c"], "_type": "ClassLabel"}, "_type": "List"},
}


def save(folder: Path, table: pa.Table, num_shards: int = 1, features: Any = FEATURES) -> None:
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{num_shards:05d}.arrow" for number in range(num_shards)]
    rows = table.num_rows // num_shards
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for number, name in enumerate(names):
        part = table.slice(number * rows, rows).replace_schema_metadata(metadata)
        with pa.ipc.new_stream(str(folder / name), part.schema) as writer:
            writer.write_table(part, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "9243e9e7e2a93b78", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features, "license": ""}))


def images(png: PNG, start: int, count: int) -> pa.Table:
    rows = range(start, start + count)
    values = [{"bytes": png(row), "path": f"{row}.png"} for row in rows]
    return pa.table({"image": values, "label": [row % 2 for row in rows], "tags": [[row % 3, 2] for row in rows]})


def test_a_data_set_with_class_names(tmp_path: Path, read: Read, png: PNG) -> None:
    save(tmp_path / "saved", images(png, 0, 4), num_shards=2)
    (tmp_path / "saved" / "cache-b1fb60cb8c4f43e4.arrow").write_bytes(b"not ours")
    found = read(tmp_path / "saved")
    assert found.column("payload") == [png(number) for number in range(4)]
    assert found.column("label") == ["cat", "dog", "cat", "dog"]
    assert found.column("source")[2] == "data-00001-of-00002.arrow#0"
    assert set(found.column("split")) == {None}
    assert found.facts["ignored"] == {".arrow": 1}


def test_a_dictionary_of_data_sets_gives_the_splits(tmp_path: Path, read: Read, png: PNG) -> None:
    save(tmp_path / "saved" / "train", images(png, 0, 4), num_shards=2)
    save(tmp_path / "saved" / "validation", images(png, 4, 2))
    save(tmp_path / "saved" / "test", images(png, 6, 2))
    save(tmp_path / "saved" / "left_over", images(png, 8, 2))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    found = read(tmp_path / "saved", label_column="tags")
    assert found.column("split") == ["test"] * 2 + ["train"] * 4 + ["val"] * 2
    assert found.column("payload") == [png(number) for number in (6, 7, 0, 1, 2, 3, 4, 5)]
    assert found.column("labels")[:2] == [["a", "c"], ["b", "c"]]
    assert read(tmp_path / "saved" / "train").column("label") == ["cat", "dog", "cat", "dog"]


def test_the_hash_follows_the_class_names(tmp_path: Path, open_at: Any, png: PNG) -> None:
    save(tmp_path / "one", images(png, 0, 2))
    save(tmp_path / "two", images(png, 0, 2))
    info = tmp_path / "two" / "dataset_info.json"
    assert open_at(tmp_path / "one").listing_hash() == open_at(tmp_path / "two").listing_hash()
    info.write_text(info.read_text().replace("dog", "cow"))
    assert open_at(tmp_path / "one").listing_hash() != open_at(tmp_path / "two").listing_hash()


def test_class_names_of_the_info_count_more_than_those_of_the_schema(tmp_path: Path, read: Read, png: PNG) -> None:
    save(tmp_path / "saved", images(png, 0, 2))
    info = tmp_path / "saved" / "dataset_info.json"
    info.write_text(info.read_text().replace("dog", "cow"))
    assert read(tmp_path / "saved").column("label") == ["cat", "cow"]
    info.write_text("{}")
    assert read(tmp_path / "saved").column("label") == ["cat", "dog"]


def test_two_dimensional_arrays(tmp_path: Path, read: Read) -> None:
    values = pa.array([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.uint8())))
    feature = {"image": {"shape": [2, 2], "dtype": "uint8", "_type": "Array2D"}}
    save(tmp_path / "saved", pa.table({"image": values}), features=feature)
    (payload,) = read(tmp_path / "saved").column("payload")
    assert payload.startswith(b"\x93NUMPY")
    assert payload.endswith(bytes([1, 2, 3, 4]))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("dataset_dict.json", '{"splits": ["train", "extra"]}', r"the split 'extra', which is not train, val or test"),
        ("dataset_dict.json", '{"splits": ["train", "test"]}', r"test.state\.json cannot be read"),
        ("train/state.json", "{", r"train.state\.json cannot be read"),
        ("train/state.json", "[]", r"train.state\.json holds no JSON object"),
        ("train/state.json", '{"_data_files": [{"filename": "x.arrow"}]}', r"x\.arrow is missing, and state\.json"),
        ("train/state.json", '{"_indices_data_files": [{"filename": "i.arrow"}]}', r"train is a selection of rows"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    tmp_path: Path, read: Read, png: PNG, file: str, text: str, message: str
) -> None:
    save(tmp_path / "saved" / "train", images(png, 0, 2))
    save(tmp_path / "saved" / "extra", images(png, 0, 2))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    (tmp_path / "saved" / file).write_text(text)
    with pytest.raises(RequestError, match=message):
        read(tmp_path / "saved")


def test_class_names_of_several_labels_and_numbers(tmp_path: Path, read: Read, png: PNG) -> None:
    ages = pa.array([0.5, None, 2.0, float("nan")], pa.float32())
    save(tmp_path / "saved", images(png, 0, 4).append_column("age", ages))
    found = read(tmp_path / "saved", labels_column="tags", number_column="age")
    assert found.column("number") == [0.5, None, 2.0, None]
    assert found.column("labels") == [["a", "c"], ["b", "c"], ["c"], ["a", "c"]]
    assert found.column("label") == ["cat", "dog", "cat", "dog"]
