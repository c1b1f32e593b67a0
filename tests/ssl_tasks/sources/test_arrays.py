"""NumPy files: stacks of images, labels beside them, splits in their names."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.sources import arrays

Read = Callable[..., Any]


def stack(count: int, *shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *(shape or (4, 5)))).astype(dtype)


def decoded(found: Any) -> list[np.ndarray]:
    return [np.load(io.BytesIO(payload)) for payload in found.column("payload")]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_each_row_is_what_numpy_would_save(
    tmp_path: Path, read: Read, dtype: str, shape: tuple[int, ...], order: Any
) -> None:
    values = np.asarray(stack(7, *shape, dtype=dtype), order=order)
    np.save(tmp_path / "x.npy", values)
    found = read(tmp_path / "x.npy")
    assert found.column("source") == [f"x.npy#{row}" for row in range(7)]
    for row, payload in zip(values, found.column("payload"), strict=True):
        expected = io.BytesIO()
        np.save(expected, np.ascontiguousarray(row))
        assert payload == expected.getvalue()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[[0, 255]]], np.int64), np.array([[0, 255]], np.uint8)),
        (np.array([[[0, 1]], [[0, 256]]], np.int32), np.array([[0, 1]], np.uint16)),
        (np.array([[[0, 65535]]], ">u2"), np.array([[0, 65535]], np.uint16)),
        (np.array([[[0.5, 2.0]]], np.float64), np.array([[0.5, 2.0]], np.float32)),
        (np.array([[[0.5, 2.0]]], np.float16), np.array([[0.5, 2.0]], np.float32)),
        (np.array([[[0.5, 2.0]]], ">f4"), np.array([[0.5, 2.0]], np.float32)),
        (np.array([[[False, True]]]), np.array([[0, 255]], np.uint8)),
    ],
)
def test_other_types_are_converted_without_loss(
    tmp_path: Path, read: Read, values: np.ndarray, expected: np.ndarray
) -> None:
    np.save(tmp_path / "x.npy", values)
    first = decoded(read(tmp_path / "x.npy"))[0]
    assert first.dtype == expected.dtype
    assert first.dtype.isnative
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize("name", ["a", "z"])
@pytest.mark.parametrize("packed", [False, True])
def test_integers_have_one_depth_in_all_files_and_arrays(tmp_path: Path, read: Read, name: str, packed: bool) -> None:
    dark, bright = np.full((2, 3, 4), 200), np.full((2, 3, 4), 300)
    if packed:
        first, second = ("train", "val") if name == "z" else ("val", "train")
        np.savez(tmp_path / "x.npz", **{f"{first}_images": dark, f"{second}_images": bright})
    else:
        np.save(tmp_path / "m.npy", dark)
        np.save(tmp_path / f"{name}.npy", bright)
    found = decoded(read(tmp_path))
    assert {image.dtype.name for image in found} == {"uint16"}
    assert sorted({int(image.max()) for image in found}) == [200, 300]


def test_integers_beside_uint16_are_of_its_depth(tmp_path: Path, read: Read) -> None:
    np.save(tmp_path / "a.npy", np.full((1, 3, 4), 7))
    np.save(tmp_path / "b.npy", np.full((1, 3, 4), 7, np.uint16))
    np.save(tmp_path / "c.npy", np.full((1, 3, 4), 7, np.uint8))
    assert [image.dtype.name for image in decoded(read(tmp_path))] == ["uint16", "uint16", "uint8"]


def test_the_pass_for_the_depth_counts_nothing_twice(tmp_path: Path, read: Read) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 3, 4), int), extra=np.zeros(3))
    facts = read(tmp_path / "x.npz").facts
    assert (facts["files"], facts["ignored"]) == (1, {"array 'extra'": 1})


@pytest.mark.parametrize("packed", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("images", "labels"), np.arange(7)),
        (("x", "y"), np.arange(7, dtype=np.float64)),
        (("data", "targets"), np.arange(7)[:, None]),
        (("arr_0", "arr_1"), np.array([str(i) for i in range(7)])),
        (("stuff", "label"), np.array([str(i).encode() for i in range(7)])),
    ],
)
def test_images_and_labels_of_an_npz(
    tmp_path: Path, read: Read, packed: Any, names: tuple[str, str], labels: np.ndarray, monkeypatch: Any
) -> None:
    monkeypatch.setattr(arrays, "BATCH_ROWS", 3)
    images = stack(7)
    packed(tmp_path / "x.npz", **{names[1]: labels, names[0]: images, "extra": np.zeros(3)})
    found = read(tmp_path / "x.npz")
    np.testing.assert_array_equal(decoded(found), images)
    assert found.column("label") == [str(i) for i in range(7)]
    assert found.column("source")[3] == f"x.npz#3:{names[0]}"
    assert found.facts["ignored"] == {"array 'extra'": 1}


@pytest.mark.parametrize("form", ["x_train y_train", "train_images train_labels"])
def test_names_give_the_splits(tmp_path: Path, read: Read, form: str) -> None:
    sizes = {"train": 4, "test": 2, "val": 3}
    values: dict[str, np.ndarray] = {}
    for seed, (split, size) in enumerate(sizes.items()):
        images, labels = form.replace("train", split).split()
        values |= {labels: np.full((size, 1), seed), images: stack(size, seed=seed)}
    np.savez(tmp_path / "x.npz", **values)
    found = read(tmp_path / "x.npz")
    assert found.column("split") == ["train"] * 4 + ["val"] * 3 + ["test"] * 2
    assert found.column("label") == ["0"] * 4 + ["2"] * 3 + ["1"] * 2
    assert len(set(found.column("source"))) == 9


def test_several_classes_a_row(tmp_path: Path, read: Read) -> None:
    np.savez(tmp_path / "x.npz", images=stack(3), labels=np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]]))
    assert read(tmp_path / "x.npz").column("labels") == [["0", "2"], [], ["1"]]


def test_a_folder_of_arrays(tmp_path: Path, read: Read) -> None:
    for name in ("b", "a"):
        np.save(tmp_path / f"{name}.npy", stack(2))
    assert read(tmp_path).column("source") == ["a.npy#0", "a.npy#1", "b.npy#0", "b.npy#1"]


def test_an_array_beside_images_is_no_image(tmp_path: Path, read: Read) -> None:
    np.save(tmp_path / "x.npy", stack(2))
    (tmp_path / "y.png").write_bytes(b"y")
    found = read(tmp_path)
    assert found.column("source") == ["y.png"]
    assert found.facts["ignored"] == {".npy": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": np.zeros((3, 2, 2)), "labels": np.zeros(2)}, r"images has 3 rows, and labels has shape \(2,\)"),
        ({"a": np.zeros((3, 2, 2)), "b": np.zeros((3, 2, 2))}, r"several arrays.*it holds a float64 \(3, 2, 2\), b"),
        ({"a": np.zeros((3, 2))}, r"no array of \(N, H, W\).*it holds a float64 \(3, 2\)"),
        ({"images": np.array([np.zeros((1, 2)), np.zeros((2, 1))], object)}, r"images holds Python objects \(a ragged"),
        (
            {"images": np.zeros((1, 2, 2)), "labels": np.array(["a"], object)},
            r"labels\.npy holds Python objects \(a ragged array, or a list of strings\)",
        ),
        ({"images": np.full((1, 2, 2), -1)}, r"x\.npz:images holds int64 from -1 to 0; store pixels as uint8"),
        ({"images": np.full((1, 2, 2), 1j)}, r"no array of \(N, H, W\)"),
        ({"images": np.zeros((2, 2, 2)), "labels": np.full((2, 2), 3)}, r"its labels have shape \(2, 2\)"),
        ({"images": np.asfortranarray(np.zeros((2, 3, 4)))}, r"images\.npy is in Fortran order"),
    ],
)
def test_arrays_that_are_no_images_are_refused_by_name(
    tmp_path: Path, read: Read, values: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "x.npz", **values)
    with pytest.raises(RequestError, match=message):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 2)), r"x\.npy has shape \(3, 2\); images are \(N, H, W\) or \(N, H, W, C\)"),
        (np.array([{"a": 1}], object), r"x\.npy holds Python objects"),
        (np.zeros((1, 2, 2), "i8") + 70_000, r"x\.npy holds int64 from 0 to 70000"),
    ],
)
def test_an_npy_that_is_no_stack_is_refused(tmp_path: Path, read: Read, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(RequestError, match=message):
        read(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.6, 0.99])
def test_a_file_that_is_cut_is_refused_by_name(tmp_path: Path, read: Read, name: str, keep: float) -> None:
    path = tmp_path / name
    if name.endswith("npy"):
        np.save(path, stack(50))
    else:
        (np.savez_compressed if name.startswith("packed") else np.savez)(path, images=stack(50))
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(RequestError, match=rf"{name} cannot be read"):
        read(path)


def test_a_flipped_bit_in_an_npz_is_found(tmp_path: Path, read: Read) -> None:
    np.savez(tmp_path / "x.npz", images=stack(50))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(RequestError, match=r"x\.npz cannot be read: Bad CRC-32"):
        read(tmp_path / "x.npz")


def test_an_array_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, open_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "BATCH_ROWS", 1)
    np.save(tmp_path / "x.npy", stack(500))
    samples = open_at(tmp_path / "x.npy").samples()
    next(samples)
    os.utime(tmp_path / "x.npy", (1, 1))
    with pytest.raises(StageError, match=r"x\.npy changed while it was read"):
        list(samples)


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_rows_of_a_single_one_are_classes(tmp_path: Path, read: Read, dtype: Any) -> None:
    hot = np.eye(3, dtype=dtype)[[2, 0, 1, 1]]
    np.savez(tmp_path / "x.npz", images=stack(4), labels=hot)
    found = read(tmp_path / "x.npz")
    assert found.column("label") == ["2", "0", "1", "1"]
    assert set(found.column("labels")) == {None}


def test_one_row_of_two_labels_makes_all_rows_sets(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BATCH_ROWS", 2)
    np.savez(tmp_path / "x.npz", images=stack(5), labels=np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]]))
    found = read(tmp_path / "x.npz")
    assert found.column("labels") == [["0"], ["1"], ["0"], ["1"], ["0", "1"]]
    assert set(found.column("label")) == {None}


def test_a_damaged_header_is_refused_by_the_files_name(tmp_path: Path, read: Read) -> None:
    np.save(tmp_path / "x.npy", stack(3))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data.replace(b"), }", b"(, }"))
    with pytest.raises(RequestError, match=r"x\.npy cannot be read"):
        read(tmp_path / "x.npy")


def test_an_encrypted_npz_is_refused_by_its_name(tmp_path: Path, read: Read) -> None:
    np.savez(tmp_path / "x.npz", images=stack(3))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    for mark, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.index(mark) + flags] |= 1
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(RequestError, match=r"x\.npz: images\.npy is encrypted"):
        read(tmp_path / "x.npz")
