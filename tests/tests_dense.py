"""Pictures of a disc and a square, each in its colour, on a grey texture, with their masks and boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DISC, SQUARE = 1, 2
COLOURS = {DISC: (210, 60, 50), SQUARE: (50, 90, 220)}

Array = NDArray[Any]


def scene(number: int, side: int = 32, width: int | None = None) -> tuple[Array, Array, list[list[float]]]:
    """(H, W, 3) uint8, (H, W) uint8 of 0, `DISC` and `SQUARE`, and x, y, w, h of what can be seen of either."""
    random, wide = np.random.default_rng([9, number]), width or side
    image = np.repeat(random.integers(70, 150, (side, wide, 1)), 3, axis=2).astype(np.float64)
    mask = np.zeros((side, wide), np.uint8)
    y, x = np.mgrid[:side, :wide]
    for kind in random.permutation([DISC, SQUARE])[: int(random.integers(1, 3))].tolist():
        radius = int(random.integers(side // 7, side // 4))
        cy, cx = (int(random.integers(radius, length - radius)) for length in (side, wide))
        far = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        inside = far if kind == DISC else (abs(y - cy) <= 0.8 * radius) & (abs(x - cx) <= 0.8 * radius)
        mask[inside] = kind
        image[inside] = COLOURS[kind]
    noisy = (image + random.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8)
    return noisy, mask, [box_of(mask == kind) for kind in (DISC, SQUARE) if (mask == kind).any()]


def box_of(inside: Array) -> list[float]:
    """x, y, w, h of the least box around these pixels."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return [float(value) for value in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]


def dense_folder(root: Path, count: int = 24, side: int = 32, width: int | None = None, first: int = 0) -> Path:
    """images/000.png, ..., masks/000.png, ... and the COCO file instances.json."""
    described: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, mask, boxes = scene(first + number, side, width)
        name = f"{number:03d}.png"
        Image.fromarray(image).save(root / "images" / name)
        Image.fromarray(mask).save(root / "masks" / name)
        described["images"].append({"id": 1000 + number, "file_name": name})
        described["annotations"] += [{"image_id": 1000 + number, "bbox": box, "category_id": 1} for box in boxes]
    (root / "instances.json").write_text(json.dumps(described))
    return root
