"""A list of small pictures with captions: filled circles, squares and triangles in three colours."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230)}
SHAPES = ("circle", "square", "triangle")
SIDE = 16
ONLY_IN_TEST = "zyzzyva"


def caption_of(number: int) -> str:
    colour, shape = list(COLOURS)[number % 3], SHAPES[number // 3 % 3]
    return f"A {colour} {shape}" if number % 3 else f"this is a {shape}, and it is {colour}"


def picture(number: int) -> Image.Image:
    """Of what `caption_of` says, somewhere on a dark noisy ground."""
    random = np.random.default_rng(number)
    image = Image.fromarray(random.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8))
    x, y, size = (int(value) for value in (*random.integers(0, 6, 2), random.integers(8, 11)))
    colour, shape, draw = list(COLOURS.values())[number % 3], SHAPES[number // 3 % 3], ImageDraw.Draw(image)
    if shape == "triangle":
        draw.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], fill=colour)
    else:
        (draw.ellipse if shape == "circle" else draw.rectangle)([x, y, x + size, y + size], fill=colour)
    return image


def captioned(
    folder: Path, count: int = 90, change: Callable[[int, dict[str, Any]], None] = lambda number, row: None
) -> Path:
    """`list.csv` of `count` pictures: each fifth is for test, each fifth for val; `change` may alter its rows.

    The caption of the first test picture has a word that no other has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        picture(number).save(folder / f"{number:03d}.png")
        split = {0: "test", 1: "val"}.get(number % 5, "train")
        rows.append({"path": f"{number:03d}.png", "text": caption_of(number), "split": split, "label": number // 3 % 3})
        if number == 0:
            rows[0]["text"] += f" {ONLY_IN_TEST}"
        change(number, rows[-1])
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "list.csv"


def sections(path: Path, **ingest: Any) -> dict[str, Any]:
    """A recipe that learns from them in a moment."""
    return {
        "ingest": {"path": str(path), "captions": True, **ingest},
        "clean": {"near_duplicates": None},
        "normalize": {"size": SIDE, "channels": 3},
        "augment": {"crop_scale": [0.8, 1.0], "jitter_probability": 0.0, "gray_probability": 0.0},
        "pretrain": {
            "method": {"name": "clip", "out_dim": 16, "text_width": 16, "text_depth": 1, "text_heads": 2},
            "backbone": "test_resnet",
            "batch_size": 18,
            "epochs": 4,
            "health_checks": 1,
            "layout": "contiguous",
            "compile": "never",
            "threads": 1,
        },
    }
