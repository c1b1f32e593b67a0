"""Masks in a folder beside the images, boxes in a column or in COCO's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests_dense import dense_folder, scene

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.boxes import boxes_of, read_coco

Read = Callable[..., Any]
PNG = Callable[[int], bytes]


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("image", "mask", "split"),
    [
        ("images/{}.jpg", "masks/{}.png", None),
        ("{}.png", "masks/{}.png", None),
        ("images/train/x/{}.png", "masks/train/x/{}.png", "train"),
        ("training/images/{}.png", "training/masks/{}.PNG", "train"),
        ("test/{}.png", "masks/test/{}.png", "test"),
        ("a/b/{}.tar.png", "a/b/masks/{}.tar.npy", None),
    ],
)
def test_a_mask_stands_beside_its_image(
    tmp_path: Path, read: Read, png: PNG, image: str, mask: str, split: str | None
) -> None:
    pairs = {image.format(number): png(number) for number in range(3)}
    masks = {mask.format(number): b"mask %d" % number for number in (0, 2)}
    found = read(write(tmp_path, pairs | masks), masks=True)
    assert found.column("source") == sorted(pairs)
    assert found.column("payload") == [png(number) for number in range(3)]
    assert found.column("mask") == [b"mask 0", None, b"mask 2"]
    assert found.column("split") == [split] * 3
    assert found.column("label") == [None] * 3


def test_another_folder_of_masks_and_the_labels_of_folders(tmp_path: Path, read: Read, png: PNG) -> None:
    write(tmp_path, {"photos/cat/a.png": png(0), "photos/dog/a.png": png(1), "labels/dog/a.png": png(2)})
    found = read(tmp_path, masks=True, mask_folder="labels", folders=["ignore", "label"])
    assert found.column("label") == ["cat", "dog"]
    assert found.column("mask") == [None, png(2)]


def test_two_masks_of_one_image_are_refused(tmp_path: Path, read: Read, png: PNG) -> None:
    write(tmp_path, {"images/a.png": png(0), "masks/a.png": png(1), "masks/a.bmp": png(2)})
    with pytest.raises(RequestError, match=r"ingest.mask_folder: masks has 'a.bmp' and 'a.png'"):
        read(tmp_path, masks=True)


def test_a_changed_mask_is_another_listing(tmp_path: Path, open_at: Any, png: PNG) -> None:
    write(tmp_path, {"images/a.png": png(0), "masks/a.png": png(1)})
    first = open_at(tmp_path, masks=True).listing_hash()
    assert open_at(tmp_path, masks=True).listing_hash() == first
    (tmp_path / "masks/a.png").write_bytes(png(2) + b"x")
    assert open_at(tmp_path, masks=True).listing_hash() != first


def test_boxes_of_a_coco_file(tmp_path: Path, read: Read, open_at: Any) -> None:
    root = dense_folder(tmp_path, 4)
    described = json.loads((root / "instances.json").read_text())
    described["annotations"] = [one for one in described["annotations"] if one["image_id"] != 1001]
    described["annotations"].append({"image_id": 1002, "bbox": [0, 0, 1, 1], "iscrowd": 1})
    del described["images"][3]
    (root / "instances.json").write_text(json.dumps(described))
    found = read(root, masks=True, boxes=True, boxes_file="instances.json")
    expected = [[dict(zip("xywh", box, strict=True)) for box in scene(number)[2]] for number in range(4)]
    assert found.column("boxes") == [expected[0], [], expected[2], None]
    assert len(found.column("mask")) == 4
    before = open_at(root, boxes=True, boxes_file="instances.json").listing_hash()
    (root / "instances.json").write_text(json.dumps({**described, "annotations": []}))
    assert open_at(root, boxes=True, boxes_file="instances.json").listing_hash() != before


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "no COCO annotation file"), ("{", "no COCO annotation file"), ('{"images": []}', "annotations")],
)
def test_another_file_than_cocos_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RequestError, match=rf"ingest.boxes_file: .*{message}"):
        read_coco(tmp_path / "x.json")
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_coco(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 3.5, 4], [[1, 2, 3.5, 4]]),
        ([[1, 2, 3, 4], (5, 6, 7, 8)], [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("[[1, 2, 3, 4]]", [[1, 2, 3, 4]]),
        ({"bbox": [[1, 2, 3, 4]], "category": [7]}, [[1, 2, 3, 4]]),
        ([{"bbox": [1, 2, 3, 4]}, {"x": 5, "y": 6, "w": 7, "h": 8}], [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([], []),
        ("[]", []),
        ("  ", None),
        (None, None),
    ],
)
def test_how_boxes_may_be_written(value: Any, expected: Any) -> None:
    found = boxes_of(value, "x")
    assert (found and [[box[side] for side in "xywh"] for box in found]) == (expected or (found and []))
    assert (found is None) == (expected is None)


@pytest.mark.parametrize("value", [[1, 2, 3], "a box", 5, [[1, 2, 3, "x"]], {"left": 1}, [[1, 2, 3, 4], 5]])
def test_what_is_no_box_is_refused_by_its_row(value: Any) -> None:
    with pytest.raises(RequestError, match=r"list.csv#3: boxes: .* is not one \[x, y, width, height\]"):
        boxes_of(value, "list.csv#3: boxes")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_boxes_and_masks_of_columns(tmp_path: Path, read: Read, png: PNG, ending: str) -> None:
    write(tmp_path, {"a.png": png(0), "b.png": png(1), "m.png": png(2)})
    boxes = [[[1, 2, 3, 4], [0, 0, 5.5, 5]], None]
    file = tmp_path / f"list.{ending}"
    if ending == "csv":
        file.write_text('path,mask,boxes\na.png,m.png,"[[1, 2, 3, 4], [0, 0, 5.5, 5]]"\nb.png,,\n')
    elif ending == "jsonl":
        lines = [{"path": "a.png", "mask": "m.png", "boxes": boxes[0]}, {"path": "b.png"}]
        file.write_text("\n".join(map(json.dumps, lines)))
    else:
        pq.write_table(pa.table({"path": ["a.png", "b.png"], "mask": ["m.png", None], "boxes": boxes}), file)
    found = read(file, masks=True, boxes=True)
    assert found.column("mask") == [png(2), None]
    expected = [{"x": 1, "y": 2, "w": 3, "h": 4}, {"x": 0, "y": 0, "w": 5.5, "h": 5}]
    assert found.column("boxes") == [expected, None]
    assert read(file).column("boxes") == [None, None]
    assert read(file, boxes_column="boxes").column("boxes") == [expected, None]


@pytest.mark.parametrize("key", ["masks", "boxes"])
def test_a_missing_column_is_refused(tmp_path: Path, read: Read, png: PNG, key: str) -> None:
    write(tmp_path, {"a.png": png(0), "list.csv": b"path\na.png\n"})
    column = {"masks": "mask", "boxes": "boxes"}[key]
    with pytest.raises(RequestError, match=rf"ingest.{key}: list.csv has no column '{column}'.*ingest.{column}_column"):
        read(tmp_path / "list.csv", **{key: True})


def test_boxes_of_folders_need_their_file(tmp_path: Path, read: Read, png: PNG) -> None:
    write(tmp_path, {"a.png": png(0)})
    with pytest.raises(RequestError, match=r"ingest.boxes: name the COCO annotation file"):
        read(tmp_path, boxes=True)


def test_masks_mean_nothing_for_arrays(tmp_path: Path, read: Read) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(RequestError, match=r"ingest.masks: means nothing"):
        read(tmp_path, masks=True)
