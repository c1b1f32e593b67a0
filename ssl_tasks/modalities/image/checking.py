"""Can each image be used, what is in it, and what does it look like?"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssl_tasks.modalities.base import Checked, Kind
from ssl_tasks.modalities.image import looks
from ssl_tasks.modalities.image.decoding import Pixels, decode, quietly
from ssl_tasks.modalities.image.readers import UnusableError
from ssl_tasks.parallel import payload_map

SHAPES = {"width": pa.int32(), "height": pa.int32(), "channels": pa.int32(), "depth": pa.string(), "frames": pa.int32()}


@dataclass(frozen=True)
class Seen:
    """One image that can be used."""

    width: int
    height: int
    channels: int
    depth: str
    frames: int
    oddity: str | None
    key: bytes
    thumbnail: NDArray[np.uint8]
    middle: NDArray[np.uint8]


def check(payloads: list[bytes | None], config: Any) -> Checked:
    """Examine a batch.

    Args:
        config: `clean`'s.
    """
    with quietly():
        found = list(payload_map(lambda data: examine(data, config), payloads))
    good = [one for one in found if isinstance(one, Seen)]
    thumbnails = np.array([one.thumbnail for one in good], np.uint8).reshape(-1, looks.SIDE, looks.SIDE, 3)
    measured = looks.measure(thumbnails, [one.middle for one in good])
    prints = looks.prints(thumbnails)
    bad = [one if isinstance(one, UnusableError) else None for one in found]
    return Checked(
        reasons=[one.reason if one else None for one in bad],
        details=[one.detail if one else None for one in bad],
        oddities=[one.oddity if isinstance(one, Seen) else None for one in found],
        keys=[one.key if isinstance(one, Seen) else None for one in found],
        measures=pa.table(
            {
                **{name: pa.array([getattr(one, name) for one in good], kind) for name, kind in SHAPES.items()},
                **{name: pa.array(measured[name], pa.float32()) for name in looks.MEASURES},
            }
        ),
        kinds=[kind_of(one.channels, one.depth) for one in good],
        prints=prints,
        signatures=looks.signatures(prints),
    )


def examine(data: bytes | None, config: Any) -> Seen | UnusableError:
    """One image, or what is wrong with it."""
    try:
        if data is None:
            raise UnusableError("missing", "the file that the list names is not there")
        picture = decode(data, max_pixels=config.max_pixels)
        shown = looks.visible(_usable(picture.pixels, config))
    except UnusableError as error:
        return error.with_traceback(None)  # whose frames would hold the pixels
    height, width, channels = picture.pixels.shape
    return Seen(
        height=height,
        width=width,
        channels=channels,
        depth=picture.pixels.dtype.name,
        frames=picture.frames,
        oddity=picture.oddity,
        key=content_key(picture.pixels),
        thumbnail=looks.thumbnail(shown),
        middle=looks.middle(shown).copy(),
    )


def _usable(pixels: Pixels, config: Any) -> Pixels:
    height, width = pixels.shape[:2]
    if min(height, width) < config.min_side:
        raise UnusableError("too_small", f"{width} x {height} pixels, clean.min_side is {config.min_side}")
    if max(height, width) > config.max_aspect * min(height, width):
        raise UnusableError("extreme_aspect", f"{width} x {height} pixels, clean.max_aspect is {config.max_aspect:g}")
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise UnusableError("not_finite", f"{int((~np.isfinite(pixels)).sum())} values are NaN or infinite")
    _require_contrast(pixels, config.min_contrast)
    return pixels


def _require_contrast(pixels: Pixels, least: float) -> None:
    """White is known of uint8 only: 12 bits in uint16 and temperatures in float32 fill a small part of their range."""
    low, high = float(pixels.min()), float(pixels.max())
    if high == low:
        raise UnusableError("blank", f"all values are {low:g}")
    if pixels.dtype == np.uint8 and high - low <= least * 255:
        shown = f"all values lie between {low:g} and {high:g}, clean.min_contrast is {least:g}"
        raise UnusableError("blank", shown)


@functools.cache
def kind_of(channels: int, depth: str) -> Kind:
    """Grey and colour become each other, and so do 8 and 16 bits; other bands and floats mean something else."""
    family = f"{'floats' if depth == 'float32' else 'integers'}, {3 if channels == 1 else channels}"
    return Kind(family, f"{channels} channel{'s' * (channels != 1)} of {depth}", f"{channels} of {depth}")


def content_key(pixels: Pixels) -> bytes:
    """16 bytes, equal for equal pixels, however they were encoded; grey as one channel or three is the same."""
    if pixels.shape[2] == 3 and _is_grey(pixels):
        pixels = pixels[:, :, :1]
    hasher = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.digest()


def _is_grey(pixels: Pixels) -> bool:
    probe = pixels[:: max(1, len(pixels) // 8)]  # most pictures are told by a few of their rows
    return all(
        bool((part[..., 0] == part[..., 1]).all() and (part[..., 0] == part[..., 2]).all()) for part in (probe, pixels)
    )
