"""Where things are in an image: its mask of classes and its boxes, checked, and brought to the stored frame.

Both lie on the pixels as they stand in the image's file, and are turned as the image is. A mask that says an
orientation of its own, or that has the size of the upright image only, is upright already.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_tasks.modalities.image.decoding import ORIENTATION, decode, orientation, quietly, turned
from ssl_tasks.modalities.image.placing import IGNORED, Place, place
from ssl_tasks.modalities.image.readers import UnusableError
from ssl_tasks.modalities.image.resize import stored
from ssl_tasks.parallel import SMALL_BYTES, ordered_map
from ssl_tasks.sources.boxes import SIDES, Box

Mask = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width, upright."""
EDGE = 1.0
"""Pixels that a box may reach beyond the image, as rounding does; what is outside is cut off."""
TURNED = (5, 6, 7, 8)
"""Orientations that change height and width."""


def read_mask(data: bytes, image: bytes, size: Size) -> Mask:
    """(H, W) class numbers of an upright image.

    Args:
        data: a picture of one channel or with a palette, whose indices count; or a NumPy array.
        image: the file that it belongs to.
        size: the image's.

    Raises:
        UnusableError: it cannot be read, has another size, colours, or numbers above 255.
    """
    values, own = _numbers(data)
    turn = orientation(image)
    raw = size[::-1] if turn in TURNED else size
    if own:
        values = turned(values[:, :, None], own)[:, :, 0]
    elif values.shape == raw:
        values = turned(values[:, :, None], turn)[:, :, 0]
    if values.shape != size:
        (height, width), found = size, values.shape
        raise UnusableError(
            "mask_size", f"its mask has {found[1]} x {found[0]} pixels, and the image {width} x {height}"
        )
    return np.ascontiguousarray(values, np.uint8)


def _numbers(data: bytes) -> tuple[NDArray[Any], int]:
    """(H, W) numbers of 0 to 255, and the mask's own orientation, 0 where it says none."""
    try:
        if data.startswith(b"\x93NUMPY"):
            values: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
            own = 0
        else:
            opened = Image.open(io.BytesIO(data))
            own = int(opened.getexif().get(ORIENTATION, 0))
            opened.load()
            values = np.asarray(opened)
    except MemoryError:
        raise
    except Exception as error:  # as `decoding.decode` has it: the file is to blame
        raise UnusableError("unreadable_mask", f"its mask cannot be read: {type(error).__name__}") from error
    if values.ndim == 3 and values.shape[2] in (1, 3) and (values == values[:, :, :1]).all():
        values = values[:, :, 0]
    if values.ndim != 2 or values.dtype.kind not in "biu":
        shown = f"{values.shape} of {values.dtype}"
        raise UnusableError(
            "mask_classes", f"its mask is {shown}, and one number of a class for each pixel is expected"
        )
    if values.size and not (int(values.min()) >= 0 and int(values.max()) <= IGNORED):
        raise UnusableError(
            "mask_classes",
            f"its mask has numbers from {int(values.min())} to {int(values.max())}; classes are 0 to 254, and 255 is "
            "ignored",
        )
    return values.astype(np.uint8), own


def check_boxes(boxes: Sequence[Mapping[str, float]], image: bytes, size: Size) -> None:
    """Refuse boxes without an area, or outside their image.

    Raises:
        UnusableError: of the first such box.
    """
    height, width = size[::-1] if orientation(image) in TURNED else size
    for number, box in enumerate(boxes):
        x, y, w, h = values = [box[side] for side in SIDES]
        shown = f"box {number}, [{', '.join(f'{value:g}' for value in values)}],"
        if not np.isfinite(values).all() or w <= 0 or h <= 0:
            raise UnusableError("bad_box", f"{shown} has no area")
        if min(x, y) < -EDGE or x + w > width + EDGE or y + h > height + EDGE:
            raise UnusableError("bad_box", f"{shown} lies outside the image of {width} x {height} pixels")


def turned_boxes(boxes: Sequence[Box], turn: int, size: Size) -> NDArray[np.float64]:
    """(N, 4) x, y, width and height in the upright image of `size`, of boxes on the file's pixels."""
    values = np.array([[box[side] for side in SIDES] for box in boxes], np.float64).reshape(-1, 4)
    corners = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1).reshape(-1, 2, 2)
    if turn in TURNED:
        corners = corners[:, :, ::-1].copy()
    if turn in (2, 3, 6, 7):
        corners[:, :, 0] = size[1] - corners[:, :, 0]
    if turn in (3, 4, 7, 8):
        corners[:, :, 1] = size[0] - corners[:, :, 1]
    low = corners.min(axis=1)
    return np.concatenate([low, corners.max(axis=1) - low], axis=1)


def transform(
    payloads: Sequence[bytes],
    masks: Sequence[bytes | None] | None,
    boxes: Sequence[Sequence[Box] | None] | None,
    sizes: Sequence[Size],
    vocabulary: Mapping[str, Any],
    fit: Any,
    least: int,
) -> tuple[NDArray[Any], Mask | None, list[list[Box] | None] | None]:
    """Images as `ImageModality.transform` gives them, with their masks and boxes in the stored frame.

    Args:
        masks, boxes: None where the recipe has none; of a row, where it has none.
        sizes: of the images, as clean has seen them.

    Returns:
        (N, size, size, channels); (N, size, size) where a row without a mask is `IGNORED` everywhere; and boxes in
        stored pixels.
    """
    size, channels, depth = (vocabulary[name] for name in ("size", "channels", "depth"))

    def one(number: int) -> tuple[Any, Mask | None, list[Box] | None]:
        data = payloads[number]
        pixels = decode(data, least=least).pixels
        to = place(pixels.shape[0], pixels.shape[1], size, fit)
        mask = masks[number] if masks is not None else None
        found = boxes[number] if boxes is not None else None
        return (
            stored(pixels, size, channels, depth, fit),
            None if mask is None else to.mask(read_mask(mask, data, sizes[number])),
            None if found is None else _stored_boxes(to, found, data, sizes[number]),
        )

    small = sum(map(len, payloads)) < SMALL_BYTES * len(payloads)  # see `parallel.payload_map`
    with quietly():
        done = (map if small else ordered_map)(one, range(len(payloads)))
        images, stored_masks, stored_boxes = zip(*done, strict=True)
    nothing = np.full((size, size), IGNORED, np.uint8)
    return (
        np.stack(images),
        None if masks is None else np.stack([nothing if mask is None else mask for mask in stored_masks]),
        None if boxes is None else list(stored_boxes),
    )


def _stored_boxes(to: Place, boxes: Sequence[Box], image: bytes, size: Size) -> list[Box]:
    upright = turned_boxes(boxes, orientation(image), size)
    return [dict(zip(SIDES, box, strict=True)) for box in to.boxes(upright, size).tolist()]
