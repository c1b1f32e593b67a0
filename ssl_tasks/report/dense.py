"""Test images with what is true of them beside what was predicted: masks of classes, or boxes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.phrases import labels
from ssl_tasks.report.pictures import Pictures, data_uri
from ssl_tasks.report.units import percent
from ssl_tasks.report.verdict import Verdict
from ssl_tasks.schema import MASK, PREDICTIONS_FILE, ROW
from ssl_tasks.shards import Shards
from ssl_tasks.transfer.segmented import IGNORED
from ssl_tasks.transfer.tables import RANDOM_INIT
from ssl_tasks.transfer.targets import SEGMENTATION

MOST = 6
SIDE = 144
"""Pixels of a picture on the page."""
SHARE = 0.75
"""Of a class's colour where it lies over the picture."""
COLOURS = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75)]
COLOURS += [(227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207)]
"""Tableau's ten, again where there are more classes."""
BOX = (255, 221, 0)
Pixels = NDArray[np.uint8]


def section(
    transfer: Artifact, normalize: Artifact, splits: pa.Table, pictures: Pictures, verdict: Verdict, method: str
) -> dict[str, Any]:
    """Strips for the template: the first test rows, at the largest label budget and the first seed.

    Args:
        splits: the split artifact's table, in payload order.
        method: whose encoder it is.
    """
    lines = [line for line in verdict.lines if line["strategy"] == verdict.strategy]
    line = max(lines, key=lambda line: line["label_fraction"])
    said = {of: _predicted(transfer, verdict.strategy, of, line) for of in (method, RANDOM_INIT)}
    rows = [entry[ROW] for entry in said[method]]
    positions = np.searchsorted(splits[ROW].to_numpy(), rows)
    shown = pictures.levels(positions)
    is_masks = transfer.measured["task"] == SEGMENTATION
    truth = list(Shards.open(normalize, MASK).take(positions)) if is_masks else [entry["box"] for entry in said[method]]
    strips = []
    for place, picture in enumerate(shown):
        answers = [("true", truth[place], "")]
        for of, called in ((method, method), (RANDOM_INIT, "untrained")):
            entry = said[of][place] if place < len(said[of]) else None
            if entry is not None:
                answers.append((called, _mask(entry["predicted"]) if is_masks else entry["predicted"], _hit(entry)))
        draw = _with_classes if is_masks else _with_box
        cards = [{"image": _uri(_large(picture)), "name": "picture", "hit": ""}]
        cards += [{"image": _uri(draw(picture, answer)), "name": name, "hit": hit} for name, answer, hit in answers]
        strips.append(cards)
    return {
        "strips": strips,
        "masks": is_masks,
        "budget": labels(line),
        "legend": _legend(transfer) if is_masks else [],
    }


def _predicted(transfer: Artifact, strategy: str, method: str, line: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first rows of the first seed; the file holds every fit, so it is read in parts."""
    wanted = {"strategy": strategy, "method": method}
    wanted |= {key: line[key] for key in ("label_fraction", "labels_per_class")}
    for batch in transfer.batches(PREDICTIONS_FILE):
        for name, value in wanted.items():
            batch = batch.filter(pc.equal(batch[name], value))
        if batch.num_rows:
            rows = batch.slice(0, MOST).to_pylist()
            return [row for row in rows if row["seed"] == rows[0]["seed"] and row["predicted"] is not None]
    return []


def _mask(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def _hit(entry: Mapping[str, Any]) -> str:
    if "iou" in entry:
        return f"IoU {percent(entry['iou'])}"
    return f"{percent(sum(entry['right_pixels']) / max(1.0, sum(entry['true_pixels'])))} of the pixels"


def _large(picture: Pixels) -> Image.Image:
    image = Image.fromarray(picture).convert("RGB")
    factor = max(1, SIDE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _with_classes(picture: Pixels, mask: Pixels) -> Image.Image:
    """Every class but 0 in its colour over the picture, and black where nothing counts."""
    pixels = np.asarray(Image.fromarray(picture).convert("RGB")).astype(np.float64)
    colours = np.array([_colour(number) for number in range(IGNORED)] + [(0, 0, 0)], np.float64)
    share = np.where(mask == 0, 0.0, SHARE)[:, :, None]
    return _large(np.rint(pixels * (1 - share) + colours[mask] * share).astype(np.uint8))


def _colour(number: int) -> tuple[int, int, int]:
    return COLOURS[(number - 1) % len(COLOURS)]


def _with_box(picture: Pixels, box: Sequence[float]) -> Image.Image:
    image = _large(picture)
    x, y, w, h = (share * image.width for share in box)
    if w > 0 and h > 0:
        ImageDraw.Draw(image).rectangle([x, y, max(x, x + w - 1), max(y, y + h - 1)], outline=BOX, width=2)
    return image


def _uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return data_uri(stream.getvalue(), "png")


def _legend(transfer: Artifact) -> list[dict[str, str]]:
    """The colours of the classes, but of class 0, which has none."""
    names = transfer.measured["class_names"][1 : len(COLOURS) + 1]
    return [{"name": name, "colour": "#" + bytes(_colour(int(name))).hex()} for name in names]
