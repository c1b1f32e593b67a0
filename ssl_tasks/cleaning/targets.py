"""Masks and boxes that do not go with their images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.cleaning.quarantine import Found
from ssl_tasks.schema import BOXES, MASK, PAYLOAD

if TYPE_CHECKING:
    from ssl_tasks.modalities.base import Checked  # imports torch

BATCH_ROWS = 256
"""Of a table with masks, read at once."""


def wanted(config: Any) -> list[str]:
    """The columns of `schema.ROWS` that the clean or normalize stage is told to look at."""
    return [name for name, is_wanted in ((MASK, config.masks), (BOXES, config.boxes)) if is_wanted]


def bad_targets(raw: pa.Table, targets: pa.Table, checked: Checked, usable: NDArray[np.bool_]) -> dict[int, Found]:
    """By place in the batch, what is wrong with a usable image's mask or boxes.

    Args:
        targets: with the columns that are `wanted`, row by row beside `raw`.
        usable: (N,) images that can be used themselves.
    """
    if checked.measures is None:  # only images have a size
        return {}
    from ssl_tasks.modalities.image.decoding import quietly
    from ssl_tasks.modalities.image.readers import UnusableError
    from ssl_tasks.modalities.image.targets import check_boxes, read_mask

    sizes = zip(checked.measures["height"].to_pylist(), checked.measures["width"].to_pylist(), strict=True)
    found = {}
    with quietly():
        for place, size in zip(np.flatnonzero(usable).tolist(), sizes, strict=True):
            given = {name: targets[name][place].as_py() for name in targets.column_names if name in (MASK, BOXES)}
            if all(value is None for value in given.values()):
                continue
            image = raw[PAYLOAD][place].as_py()
            try:
                if given.get(MASK) is not None:
                    read_mask(given[MASK], image, size)
                check_boxes(given.get(BOXES) or (), image, size)
            except UnusableError as error:
                found[place] = Found(error.reason, error.detail)
    return found
