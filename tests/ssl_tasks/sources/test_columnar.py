"""Parquet and Arrow files with images as bytes, structs, paths and numbers."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.sources import columnar

Read = Callable[..., Any]
PNG = Callable[[int], bytes]


def write(path: Path, table: pa.Table, **options: Any) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, str(path))
    else:
        kind = pa.ipc.new_stream if path.name.startswith("stream") else pa.ipc.new_file
        with kind(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=options.get("row_group_size", 3))


FILES = ["data.parquet", "file.arrow", "stream.arrow", "data.feather"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_bytes_with_labels(tmp_path: Path, read: Read, png: PNG, name: str, kind: pa.DataType) -> None:
    columns = {"image": pa.array([png(i) for i in range(7)], kind), "label": list(range(7)), "other": ["x"] * 7}
    write(tmp_path / name, pa.table(columns))
    found = read(tmp_path / name)
    assert found.column("payload") == [png(i) for i in range(7)]
    assert found.column("source") == [f"{name}#{i}" for i in range(7)]
    assert found.column("label") == [str(i) for i in range(7)]


@pytest.mark.parametrize("name", FILES[:3])
def test_content_comes_before_a_path_beside_it(tmp_path: Path, read: Read, png: PNG, name: str) -> None:
    write(tmp_path / name, pa.table({"path": ["camera/1.png"], "jpg": [png(1)], "bytes": [b"x"]}))
    assert read(tmp_path / name).column("payload") == [png(1)]
    assert read(tmp_path / name, image_column="bytes").column("payload") == [b"x"]


@pytest.mark.parametrize("name", FILES[:3])
def test_structs_hold_bytes_or_a_path(tmp_path: Path, pictures: Path, read: Read, png: PNG, name: str) -> None:
    images = [
        {"bytes": png(9), "path": "somewhere.png"},
        {"bytes": None, "path": "pictures/1.png"},
        None,
        {"bytes": None, "path": None},
        {"bytes": png(8), "path": None},
        {"bytes": None, "path": "lost.png"},
    ]
    write(tmp_path / name, pa.table({"image": images, "mask": images[::-1]}), row_group_size=2)
    found = read(tmp_path / name)
    assert found.column("payload") == [png(9), png(1), None, None, png(8), None]
    assert found.column("mask") == [None, png(8), None, None, png(1), png(9)]
    assert found.column("source")[1] == f"{name}#1 -> pictures/1.png"
    assert found.facts["missing"] == {"payload": 1, "mask": 1}


def test_structs_of_paths_alone(tmp_path: Path, pictures: Path, read: Read, png: PNG) -> None:
    write(tmp_path / "data.parquet", pa.table({"image": [{"bytes": None, "path": "pictures/2.png"}]}))
    assert read(tmp_path / "data.parquet").column("payload") == [png(2)]


@pytest.mark.parametrize("name", ["data.parquet", "stream.arrow"])
@pytest.mark.parametrize("as_struct", [False, True])
def test_content_is_not_read_for_the_listing(
    tmp_path: Path, open_at: Any, png: PNG, monkeypatch: pytest.MonkeyPatch, name: str, as_struct: bool
) -> None:
    images = [{"bytes": png(i), "path": f"{i}.png"} if as_struct else png(i) for i in range(9)]
    write(tmp_path / name, pa.table({"image": images}))
    first = open_at(tmp_path / name).listing_hash()
    if name.endswith("parquet"):
        monkeypatch.setattr(columnar, "_bounded", None)  # needed before the first batch
    monkeypatch.setattr("ssl_tasks.sources.listing._read", None)
    assert open_at(tmp_path / name).listing_hash() == first


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_tensors_become_npy_files(tmp_path: Path, read: Read, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 200, (6, *shape)).astype(dtype)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(values)
    storage = pa.array([None if i == 2 else row.ravel() for i, row in enumerate(values)], tensors.storage.type)
    with_null = pa.ExtensionArray.from_storage(tensors.type, storage)
    write(tmp_path / name, pa.table({"image": with_null, "label": [[i] for i in range(6)]}))
    found = read(tmp_path / name)
    assert found.column("labels") == [[str(i)] for i in range(6)]
    for number, payload in enumerate(found.column("payload")):
        if number == 2:
            assert payload is None
            continue
        expected = io.BytesIO()
        np.save(expected, values[number])
        assert payload == expected.getvalue()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ([[0, 1], [2, 3]], pa.list_(pa.list_(pa.uint8())), np.array([[0, 1], [2, 3]], np.uint8)),
        ([[0.5], [1.5]], pa.large_list(pa.list_(pa.float64(), 1)), np.array([[0.5], [1.5]], np.float32)),
        ([[True, False]], pa.list_(pa.list_(pa.bool_())), np.array([[255, 0]], np.uint8)),
        ([[[1, 2], [3, 4]]], pa.list_(pa.list_(pa.list_(pa.uint16()))), np.array([[[1, 2], [3, 4]]], np.uint16)),
    ],
)
def test_lists_of_numbers(tmp_path: Path, read: Read, value: Any, kind: pa.DataType, expected: np.ndarray) -> None:
    write(tmp_path / "data.parquet", pa.table({"image": pa.array([value, None], kind)}))
    first, second = read(tmp_path / "data.parquet").column("payload")
    loaded = np.load(io.BytesIO(first))
    assert loaded.dtype == expected.dtype
    np.testing.assert_array_equal(loaded, expected)
    assert second is None


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[[1, 2], [3]]], pa.list_(pa.list_(pa.uint8()))), r"data\.parquet#0 is ragged: its lists have 2, 1"),
        (pa.array([[[1, None]]], pa.list_(pa.list_(pa.uint8()))), r"data\.parquet#0 lacks numbers"),
        (pa.array([[[1, 2]]], pa.list_(pa.list_(pa.int64()))), r"column 'image' of .* holds int64; store pixels as"),
        (pa.array([[1, 2]]), r"ingest\.path: data\.parquet has no column with paths or contents"),
        (pa.array([1.5]), r"ingest\.path: data\.parquet has no column with paths or contents"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused(tmp_path: Path, read: Read, column: pa.Array, message: str) -> None:
    write(tmp_path / "data.parquet", pa.table({"image": column}))
    with pytest.raises(RequestError, match=message):
        read(tmp_path / "data.parquet")


def test_a_named_column_of_plain_values_is_refused(tmp_path: Path, read: Read, png: PNG) -> None:
    write(tmp_path / "data.parquet", pa.table({"image": [png(0)], "mask": [3]}))
    assert "mask" not in read(tmp_path / "data.parquet").rows[0]
    with pytest.raises(RequestError, match=r"ingest\.mask_column: column 'mask' of data\.parquet holds neither"):
        read(tmp_path / "data.parquet", mask_column="mask")


def test_class_names_stand_in_the_schema(tmp_path: Path, read: Read, png: PNG) -> None:
    features = {
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
        "split": {"_type": "ClassLabel", "names": ["train", "test"]},
    }
    table = pa.table({"image": [png(i) for i in range(4)], "label": [1, 0, -1, None], "split": [0, 0, 1, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    write(tmp_path / "data.parquet", table)
    found = read(tmp_path / "data.parquet")
    assert found.column("label") == ["dog", "cat", None, None]
    assert found.column("split") == ["train", "train", "test", "test"]
    write(tmp_path / "data.parquet", table.set_column(1, "label", [[0, 1, 0, 2]]))
    with pytest.raises(RequestError, match=r"data\.parquet#3: label: 2 is outside the 2 class names"):
        read(tmp_path / "data.parquet")


@pytest.mark.parametrize("name", FILES[:3])
def test_batches_are_bounded_in_bytes(
    tmp_path: Path, read: Read, open_at: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    random = np.random.default_rng(0)
    write(tmp_path / name, pa.table({"image": [random.bytes(1000) for _ in range(200)]}), row_group_size=100)
    whole = read(tmp_path / name).rows
    monkeypatch.setattr(columnar, "BATCH_BYTES", 10_000)
    sizes = [rows.num_rows for rows, _ in open_at(tmp_path / name).samples()]
    assert max(sizes) <= 10
    assert read(tmp_path / name).rows == whole
    assert whole[-1]["source"] == f"{name}#199"


@pytest.mark.parametrize("name", FILES[:3])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_file_that_is_cut_is_refused_by_name(tmp_path: Path, read: Read, png: PNG, name: str, keep: float) -> None:
    write(tmp_path / name, pa.table({"image": [png(i) for i in range(9)]}))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(RequestError, match=rf"{name} (is no Arrow file, or is cut short|cannot be read)"):
        read(tmp_path / name)


def test_a_stream_that_ends_between_batches_is_refused(tmp_path: Path, read: Read, png: PNG) -> None:
    write(tmp_path / "stream.arrow", pa.table({"image": [png(i) for i in range(9)]}))
    whole = (tmp_path / "stream.arrow").read_bytes()
    (tmp_path / "stream.arrow").write_bytes(whole[:-8])
    assert pa.ipc.open_stream(whole[:-8]).read_all().num_rows == 9  # pyarrow does not mind
    with pytest.raises(RequestError, match="its end mark is missing"):
        read(tmp_path / "stream.arrow")


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow"])
def test_offsets_that_point_outside_are_refused(tmp_path: Path, read: Read, name: str) -> None:
    values = [bytes([65 + number]) * 7 for number in range(9)]
    write(tmp_path / name, pa.table({"image": values}), row_group_size=9)
    whole = (tmp_path / name).read_bytes()
    offsets = np.arange(0, 70, 7, dtype="<i4").tobytes()
    assert whole.count(offsets) == 1
    (tmp_path / name).write_bytes(whole.replace(offsets[12:16], (1 << 30).to_bytes(4, "little"), 1))
    with pytest.raises(RequestError, match=rf"{name} is damaged in rows 0 to 8: .*offset"):
        read(tmp_path / name)


def test_two_columns_of_one_name_are_refused(tmp_path: Path, read: Read) -> None:
    write(tmp_path / "data.parquet", pa.table([[b"x"], [b"y"]], names=["image", "image"]))
    with pytest.raises(RequestError, match=r"data\.parquet has two columns 'image'"):
        read(tmp_path / "data.parquet")


@pytest.mark.parametrize("name", FILES[:3])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, open_at: Any, png: PNG, name: str) -> None:
    write(tmp_path / name, pa.table({"image": [png(i) for i in range(2000)]}), row_group_size=10)
    samples = open_at(tmp_path / name).samples()
    next(samples)
    os.utime(tmp_path / name, (1, 1))
    with pytest.raises(StageError, match=rf"{name} changed while it was read"):
        list(samples)


def test_hub_like_names_give_the_splits(tmp_path: Path, read: Read, png: PNG) -> None:
    (tmp_path / "data").mkdir()
    for number, split in enumerate(["train", "test", "validation"]):
        write(tmp_path / "data" / f"{split}-00000-of-00001.parquet", pa.table({"image": [png(number)]}))
    found = read(tmp_path)
    assert found.column("split") == ["test", "train", "val"]
    write(tmp_path / "data" / "README.parquet", pa.table({"image": [png(7)]}))
    assert set(read(tmp_path).column("split")) == {None}
