"""Decoded pixels to what is stored: the wanted channels and depth, one size."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from ssl_tasks.errors import RequestError
from ssl_tasks.modalities.image.decoding import Pixels

Fit = Literal["crop", "pad", "stretch"]
DEPTHS = ("uint8", "uint16", "float32")
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow has it


def stored(pixels: Pixels, size: int, channels: int, depth: str, fit: Fit) -> Pixels:
    """(size, size, channels) of the dtype `depth`.

    Args:
        pixels: (H, W, C).
        fit: `crop` takes the middle square, `pad` keeps everything inside a black frame, `stretch` changes the
            aspect.
    """
    return _sized(_with_channels(_with_depth(pixels, depth), channels), size, fit)


def require_channels(have: int, wanted: int) -> None:
    """Whether an image can be stored: grey becomes any number of equal bands, and colour becomes grey.

    Raises:
        RequestError: it cannot.
    """
    if have not in (1, wanted) and (have, wanted) != (3, 1):
        raise RequestError(
            f"normalize.channels: an image has {have} channels and cannot become one of {wanted}; set it to {have} for "
            "data that all has them, or take these images out"
        )


def _with_depth(pixels: Pixels, depth: str) -> Pixels:
    have = pixels.dtype.name
    if have == depth:
        return pixels
    if (have, depth) == ("uint16", "uint8"):
        return np.rint(pixels / 257).astype(np.uint8)
    if (have, depth) == ("uint8", "uint16"):
        return pixels.astype(np.uint16) * np.uint16(257)
    raise RequestError(f"normalize: some images are {have} and the train rows {depth}; keep them apart")


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    have = pixels.shape[2]
    if have == channels:
        return pixels
    require_channels(have, channels)
    if have == 1:
        return np.repeat(pixels, channels, axis=2)
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    grey = pixels.astype(np.float64) @ np.array(LUMA)
    return _rounded(grey, pixels.dtype)[:, :, None]


def _sized(pixels: Pixels, size: int, fit: Fit) -> Pixels:
    if pixels.shape[:2] == (size, size):
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        return np.asarray(_fitted(image, size, fit)).reshape(size, size, -1)
    bands = [
        np.asarray(_fitted(Image.fromarray(pixels[:, :, band].astype(np.float32)), size, fit))
        for band in range(pixels.shape[2])
    ]
    result = np.stack(bands, axis=2)
    return _rounded(result, pixels.dtype)


def _rounded(values: Pixels, dtype: Any) -> Pixels:
    if dtype == np.float32:
        return np.asarray(values, np.float32)
    return np.asarray(np.rint(values).clip(0, np.iinfo(dtype).max), dtype)


def _fitted(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    cubic = Image.Resampling.BICUBIC
    if fit == "crop":
        return ImageOps.fit(image, (size, size), cubic)
    return ImageOps.pad(image, (size, size), cubic) if fit == "pad" else image.resize((size, size), cubic)
