"""Masks and boxes through the data stages."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_dense import dense_folder, scene

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.shards import Shards, iterate
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.stages.ingest import IngestConfig
from ssl_tasks.stages.normalize import NormalizeConfig
from ssl_tasks.store import Store

COUNT = 24
BAD_MASK, NO_MASK, BAD_BOX = 3, 5, 7


def sections(root: Path, **ingest: Any) -> dict[str, Any]:
    return {
        "ingest": {"path": str(root), **ingest},
        "clean": {"near_duplicates": None, "error_budget": 0.2},
        "normalize": {"size": 16, "fit": "pad"},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dense_folder(tmp_path_factory.mktemp("dense"), COUNT, 32, 40)
    Image.fromarray(np.zeros((40, 32), np.uint8)).save(root / "masks" / f"{BAD_MASK:03d}.png")
    (root / "masks" / f"{NO_MASK:03d}.png").unlink()
    text = (root / "instances.json").read_text()
    first = f'"bbox": {scene(BAD_BOX, 32, 40)[2][0]}'
    assert first in text
    (root / "instances.json").write_text(text.replace(first, '"bbox": [30, 3, 20, 4]'))
    return root


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory, chain: Any) -> dict[str, Artifact]:
    recipe = sections(root, masks=True, boxes=True, boxes_file="instances.json")
    made: dict[str, Artifact] = chain(Store.open(str(tmp_path_factory.mktemp("store"))), recipe, "normalize")
    return made


def test_what_does_not_lie_on_its_image_is_rejected(made: dict[str, Artifact]) -> None:
    assert made["ingest"].measured["masks"] == COUNT - 1
    assert made["ingest"].measured["boxes"] == COUNT
    assert made["clean"].measured["reasons"] == {"bad_box": 1, "mask_size": 1}
    lines = {line["row"]: line for line in made["clean"].table("quarantine.parquet").to_pylist()}
    assert "32 x 40 pixels, and the image 40 x 32" in lines[BAD_MASK]["detail"]
    assert "box 0, [30, 3, 20, 4], lies outside the image of 40 x 32" in lines[BAD_BOX]["detail"]
    assert all(line["thumbnail"] for line in lines.values())
    assert not {BAD_MASK, BAD_BOX} & set(made["assign"].table("assignment.parquet")["row"].to_pylist())


def test_masks_and_boxes_stand_beside_the_images_in_their_frame(made: dict[str, Artifact]) -> None:
    normalized = made["normalize"]
    shard = next(iterate(normalized, "payload"))
    assert shard.column_names == ["row", "payload", "mask", "boxes"]
    rows, masks = shard["row"].to_pylist(), Shards.open(normalized, "mask").take(np.arange(COUNT - 2))
    assert normalized.measured["masks"] == {"rows": COUNT - 3, "classes": [0, 1, 2]}
    assert normalized.measured["boxes"] == {"rows": COUNT - 2}
    for row, mask, boxes in zip(rows, masks, shard["boxes"].to_pylist(), strict=True):
        _, whole, given = scene(row, 32, 40)
        assert mask.shape == (16, 16)
        frame = np.full((16, 16), row != NO_MASK)  # 40 x 32 become 16 x 13 (12.8), from line 2 (1.5) on
        frame[:2] = frame[15:] = False
        assert np.array_equal(mask != 255, frame)
        if row != NO_MASK:
            assert set(np.unique(mask)) <= {*np.unique(whole), 255}
        for box, expected in zip(boxes, given, strict=True):
            x, y, w, h = expected
            moved = [x * 0.4, y * 13 / 32 + 2, w * 0.4, h * 13 / 32]
            assert [box[side] for side in "xywh"] == pytest.approx(moved, abs=1e-5)


def test_the_images_are_those_of_a_run_without_targets(root: Path, made: dict[str, Artifact], chain: Any) -> None:
    """Of the rows that both keep, with the statistics of the same train rows."""
    recipe = sections(root / "images") | {"clean": {"near_duplicates": None}}
    store = made["ingest"].store
    plain = chain(store, recipe, "normalize")["normalize"]
    assert next(iterate(plain, "payload")).column_names == ["row", "payload"]
    assert not {"masks", "boxes"} & plain.measured.keys()
    rows = np.concatenate(Shards.open(made["normalize"]).rows)
    both = Shards.open(made["normalize"]).take(np.arange(len(rows)))
    assert np.array_equal(both, Shards.open(plain).take(rows))


def test_new_keys_at_their_defaults_change_no_fingerprint() -> None:
    assert semantic(IngestConfig()) == semantic(CleanConfig()) == semantic(NormalizeConfig()) == {}
    assert semantic(NormalizeConfig(masks=True)) == {"masks": True}


def test_data_without_any_is_refused(tmp_path: Path, store: Store, chain: Any) -> None:
    root = dense_folder(tmp_path / "data", 4)
    shutil.rmtree(root / "masks")
    with pytest.raises(RequestError, match=r"ingest.masks: none of the 4 images at .* has masks; leave it out"):
        chain(store, sections(root, masks=True), "ingest")
    (root / "instances.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(RequestError, match=r"ingest.boxes: none of the 4 images at .* has boxes"):
        chain(store, sections(root, boxes=True, boxes_file="instances.json"), "ingest")


def test_tables_have_no_masks(store: Store, chain: Any) -> None:
    with pytest.raises(RequestError, match=r"ingest.masks: means nothing"):
        chain(store, {"ingest": {"path": "builtin:cancer", "modality": "tabular", "masks": True}}, "ingest")


def test_masks_of_tars(tmp_path: Path, store: Store, chain: Any) -> None:
    import tarfile

    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in range(9):
            image, mask, _ = scene(number)
            for name, pixels in ((f"{number}.png", image), (f"{number}.mask.png", mask)):
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                info = tarfile.TarInfo(name)
                info.size = stream.tell()
                stream.seek(0)
                tar.addfile(info, stream)
    made = chain(store, sections(tmp_path / "x.tar", masks=True), "normalize")["normalize"]
    masks = Shards.open(made, "mask").take(np.arange(9))
    assert [set(np.unique(mask)) for mask in masks] == [set(np.unique(scene(number)[1])) for number in range(9)]
