"""What an image looks like, in numbers: measures of its quality, and a print by which near duplicates are found.

A print is the cosine transform of a 16 x 16 thumbnail, low frequencies only, each weighted by its frequency:
so the product of two prints compares edges and not large areas. On the 60,000 images of CIFAR-10 plain
thumbnails took every pair of ships before a horizon for the same picture before they found all true pairs; with
the weights 500 pairs and more came before the first wrong one.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_tasks.modalities.image.decoding import Pixels

Float = NDArray[Any]
"""float32."""

SIDE = 16
LUMA_SIDE, CHROMA_SIDE = 12, 4
"""Frequencies kept in each direction."""
PRINT_SIZE = LUMA_SIDE**2 - 1 + 2 * (CHROMA_SIDE**2 - 1)
SIGNATURE_BITS = 256
CROP = 64
"""Noise and sharpness are measured in the middle of the picture: resizing would take both away."""
MEASURES = ("brightness", "contrast", "colour", "sharpness", "noise")


def visible(pixels: Pixels) -> NDArray[np.uint8]:
    """(H, W, 1 or 3) uint8 to look at: deep pixels between their 0.1% and 99.9% quantiles, three bands at most."""
    shown = pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1]
    if shown.dtype == np.uint8:
        return shown
    low, high = np.nanquantile(shown, [0.001, 0.999])
    scaled = (shown.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.asarray((np.nan_to_num(scaled).clip(0, 1) * 255).round(), np.uint8)


def thumbnail(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(16, 16, 3) means of equal areas."""
    image = Image.fromarray(shown if shown.shape[2] == 3 else shown[:, :, 0])
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("RGB"))


def middle(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w) grey levels of the middle, 64 x 64 at most."""
    top, left = (max(0, (side - CROP) // 2) for side in shown.shape[:2])
    part = shown[top : top + CROP, left : left + CROP]
    if part.shape[2] == 1:
        return part[:, :, 0]
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).convert("L"))


def measure(thumbnails: NDArray[np.uint8], middles: list[NDArray[np.uint8]]) -> dict[str, Float]:
    """`MEASURES`, each (N,) on the scale where white is 1.

    Noise is Immerkaer's estimate ("Fast noise variance estimation", CVIU 64(2), 1996); sharpness the deviation of
    the Laplacian.
    """
    luma, blue, red = _luma_chroma(thumbnails)
    sharpness, noise = np.zeros(len(middles), np.float32), np.zeros(len(middles), np.float32)
    for shape in {part.shape for part in middles}:
        if min(shape) < 3:
            continue
        places = [place for place, part in enumerate(middles) if part.shape == shape]
        grey = np.stack([middles[place] for place in places]).astype(np.float32) / 255
        cross = _around(grey, 0.0, 1.0, -4.0)
        sharpness[places] = cross.std(axis=(1, 2))
        noise[places] = np.sqrt(np.pi / 2) / 6 * np.abs(_around(grey, 1.0, -2.0, 4.0)).mean(axis=(1, 2))
    return {
        "brightness": luma.mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "colour": np.hypot(blue, red).mean(axis=(1, 2)),
        "sharpness": sharpness,
        "noise": noise,
    }


def _around(grey: Float, corner: float, edge: float, centre: float) -> Float:
    """(N, h-2, w-2): a symmetric 3 x 3 filter."""
    up, mid, down = grey[:, :-2], grey[:, 1:-1], grey[:, 2:]
    columns = edge * (up + down) + centre * mid
    sides = corner * (up + down) + edge * mid
    return columns[:, :, 1:-1] + sides[:, :, :-2] + sides[:, :, 2:]


def _luma_chroma(thumbnails: NDArray[np.uint8]) -> tuple[Float, Float, Float]:
    red, green, blue = (thumbnails[..., channel].astype(np.float32) / 255 for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma, 0.564 * (blue - luma), 0.713 * (red - luma)


def prints(thumbnails: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(N, 173) of length 1, or 0 where a thumbnail has one colour only."""
    basis = _cosines()
    parts = []
    for plane, side in zip(_luma_chroma(thumbnails), (LUMA_SIDE, CHROMA_SIDE, CHROMA_SIDE), strict=True):
        spectrum = np.einsum("ki,nij,lj->nkl", basis[:side], plane, basis[:side], optimize=True)
        parts.append((spectrum * _frequencies(side)).reshape(len(plane), side * side)[:, 1:])
    values = np.concatenate(parts, axis=1)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.where(length > 1e-3, values / np.maximum(length, 1e-3), 0).astype(np.float16)


def signatures(of: NDArray[np.float16]) -> NDArray[np.uint8]:
    """(N, 32) bytes: on which side of 256 fixed planes a print lies.

    Two prints at an angle a differ in about 256 a / pi bits. Low frequencies count for more than in the print
    (by the root of the frequency): they are what survives re-encoding, so fewer pairs are missed.
    """
    signed: NDArray[np.uint8] = np.packbits((of.astype(np.float32) @ _planes()) > 0, axis=1)
    return signed


@functools.cache
def _cosines() -> Float:
    """(16, 16) orthonormal type-II cosine transform."""
    k, i = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    basis = np.cos(np.pi * k * (2 * i + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def _frequencies(side: int) -> Float:
    return np.asarray(np.hypot(*np.mgrid[:side, :side]), np.float32)


@functools.cache
def _planes() -> Float:
    """(173, 256) signs of a fixed hash, so that they are the same under every numpy version."""
    drawn = hashlib.shake_256(b"pretextflow image signature").digest(PRINT_SIZE * SIGNATURE_BITS // 8)
    signs = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(PRINT_SIZE, SIGNATURE_BITS) * 2.0 - 1.0
    sides = (LUMA_SIDE, CHROMA_SIDE, CHROMA_SIDE)
    frequencies = np.concatenate([_frequencies(side).reshape(-1)[1:] for side in sides])
    return np.asarray(signs / np.sqrt(frequencies)[:, None], np.float32)
