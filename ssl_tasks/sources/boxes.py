"""Boxes around objects as users write them: in a column, or in the annotation file that COCO has."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_tasks.errors import RequestError

SIDES = ("x", "y", "w", "h")
Box = dict[str, float]
"""As `schema.BOX` has it."""
WANTED = "one [x, y, width, height] or a list of them"


def boxes_of(value: Any, where: str) -> list[Box] | None:
    """The boxes of one image: a box, a list of boxes, either as JSON text, or a mapping that has them as `bbox`.

    Args:
        where: what the message of an error begins with.

    Returns:
        An empty list for an image that shows no object, None where nothing is known of it.

    Raises:
        RequestError: it is none of these. Whether a box lies in its image is not asked here.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RequestError(f"{where}: {value[:60]!r} is not {WANTED}") from error
    if isinstance(value, Mapping) and "bbox" in value:
        value = value["bbox"]
    if value is None:
        return None
    try:
        several = value if all(isinstance(box, (list, tuple, Mapping, np.ndarray)) for box in value) else [value]
        return [_box(box) for box in several]
    except (TypeError, ValueError, KeyError) as error:
        raise RequestError(f"{where}: {str(value)[:60]} is not {WANTED}") from error


def _box(value: Any) -> Box:
    if isinstance(value, Mapping):
        value = value["bbox"] if "bbox" in value else [value[side] for side in SIDES]
    x, y, w, h = (float(side) for side in value)
    return {"x": x, "y": y, "w": w, "h": h}


def read_coco(path: Path) -> dict[str, list[Box]]:
    """File names to boxes, of a COCO annotation file, which is held in memory; what it calls a crowd is left out.

    Raises:
        RequestError: it cannot be read as one (https://cocodataset.org/#format-data).
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        found: dict[Any, list[Box]] = defaultdict(list)
        for one in described["annotations"]:
            if not one.get("iscrowd"):
                found[one["image_id"]].append(_box(one["bbox"]))
        return {str(image["file_name"]): found[image["id"]] for image in described["images"]}
    except OSError as error:
        raise RequestError(f"ingest.boxes_file: {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RequestError(
            f"ingest.boxes_file: {path} is no COCO annotation file with `images` and `annotations` "
            f"({type(error).__name__}: {error})"
        ) from error
