"""Bytes of one image to upright pixels, whatever their format, depth and number of channels.

picture = decode(data, max_pixels=100_000_000)
picture.pixels          # (H, W, C) uint8, uint16 or float32

JPEG goes through simplejpeg: it decoded 50,000 images/s of 32 px a core where Pillow made 5,000, and tells a
damaged stream apart from a whole one, which libjpeg by itself fills with grey. Everything else goes through
Pillow, and what Pillow cannot hold (16-bit colour, many bands) through a reader that can; see `readers`.
Transparent pixels stand on white. Of several frames or pages the first is read.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ssl_tasks.errors import PretextflowError
from ssl_tasks.modalities.image import readers
from ssl_tasks.modalities.image.readers import UnusableError, refuse_bomb

Image.MAX_IMAGE_PIXELS = None
"""`refuse_bomb` holds every file to `clean.max_pixels`, which Pillow's own limit of 179 million must not undercut. It
is the whole process's, so it is set here, once, and not around each file."""

Pixels = NDArray[Any]
"""(H, W, C) uint8, uint16 or float32."""

SPACES = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}
"""simplejpeg's name for what to decode to; RGB where it is none of these."""
ORIENTATION = 0x0112
PADDING = re.compile(r"(\d+) extraneous bytes before marker")
MAX_PADDING = 16
"""Bytes between two segments that cameras leave; with more of them a piece of the picture is missing."""

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
OF_THE_MOMENT = (
    (re.compile(rf"/vsimem/[^\s'\",:]+|(?:{UUID}/)*{UUID}(?:\.\w+)?"), "it"),
    (re.compile(" at 0x[0-9a-fA-F]+"), ""),
)
"""What decoders say of where a file is in memory, which no two runs have in common, and what to say for it."""
BROKEN_EXIF = (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error)
"""What Pillow raises."""


@dataclass(frozen=True)
class Picture:
    """What a file holds."""

    pixels: Pixels
    """(H, W, C), upright."""
    frames: int = 1
    oddity: str | None = None
    """What is wrong with the file although its picture is whole."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Around the decoding of a batch: Pillow warns of oddities that it reads over.

    Not around each image: filters are the whole process's, and threads would put them back in each other's order.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(data: bytes, *, max_pixels: int | None = None, least: int = 0) -> Picture:
    """One image.

    Args:
        max_pixels: more are refused from the header, before anything is decoded.
        least: where only so many pixels a side are needed, a JPEG is decoded at a half, a quarter or an eighth.

    Raises:
        UnusableError: the bytes are no image, or a damaged one.
        RequestError: the format needs a package that is not installed.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, max_pixels, least)
        read = readers.find(data)
        return Picture(*read(data, max_pixels)) if read else _pillow(data, max_pixels)
    except (UnusableError, PretextflowError, MemoryError):  # memory is the machine's: equal files, equal results
        raise
    except Exception as error:  # decoders raise almost any type on broken files; the file is to blame
        reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise UnusableError(reason, _said(error)) from error


def _said(error: Exception) -> str:
    """What a decoder complains of, in the same words in every run: clean writes it into its artifact."""
    if isinstance(error, UnidentifiedImageError):
        return "it is in no image format that is known"
    if error.__cause__ is not None and "previous exception" in str(error):  # rasterio's own words say nothing more
        text = f"{type(error).__name__}: {error.__cause__}"
    else:
        text = f"{type(error).__name__}: {error}"
    for pattern, instead in OF_THE_MOMENT:
        text = pattern.sub(instead, text)
    return text


def _jpeg(data: bytes, max_pixels: int | None, least: int) -> Picture:
    space = SPACES.get(_header(data, max_pixels), "RGB")
    oddity = None
    try:
        pixels = simplejpeg.decode_jpeg(data, space, min_height=least, min_width=least)
    except ValueError as error:
        oddity = _harmless(error)
    if oddity or space == "CMYK":  # Pillow reads over oddities, and knows when inks are stored inverted
        return replace(_pillow(data, max_pixels), oddity=oddity)
    return Picture(turned(pixels, _orientation(data)))


def _header(data: bytes, max_pixels: int | None) -> str:
    """The colour space of a JPEG."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError) as error:  # KeyError: a colour space that there is not
        raise UnusableError("unreadable", f"it has no JPEG header that can be read: {error}") from error
    refuse_bomb(width, height, max_pixels)
    return str(space)


def _harmless(warning: ValueError) -> str:
    """What the decoder complains of, where the picture is whole all the same.

    Raises:
        UnusableError: it is not.
    """
    text = str(warning)
    padding = PADDING.search(text)
    if padding and int(padding[1]) <= MAX_PADDING:
        return text
    raise UnusableError("truncated" if "premature end" in text.lower() else "corrupt", text) from warning


def partly(data: bytes) -> Pixels | None:
    """As much of a damaged file as can be decoded, for a thumbnail; None where that is nothing."""
    for attempt in (_pillow, _cut_jpeg):
        with contextlib.suppress(Exception):  # see `decode`
            return attempt(data, 1 << 28).pixels
    return None


def _cut_jpeg(data: bytes, max_pixels: int) -> Picture:
    space = SPACES.get(_header(data, max_pixels), "RGB")
    return Picture(simplejpeg.decode_jpeg(data, space, min_height=256, min_width=256, strict=False)[:, :, :3])


def orientation(data: bytes) -> int:
    """1 to 8, as EXIF has it: how `decode` turns an image of any format."""
    if data.startswith(b"\xff\xd8\xff"):
        return _orientation(data)
    if readers.find(data):  # which turn nothing
        return 1
    try:
        return int(Image.open(io.BytesIO(data)).getexif().get(ORIENTATION, 1))
    except BROKEN_EXIF:
        return 1


def _orientation(data: bytes) -> int:
    """1 to 8, as EXIF has it; looking for the mark first saves Pillow's parser on most files."""
    if b"Exif\0\0" not in data:
        return 1
    try:
        return int(Image.open(io.BytesIO(data)).getexif().get(ORIENTATION, 1))
    except BROKEN_EXIF:  # which does not make the picture unusable
        return 1


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: (H, W, C) to upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _pillow(data: bytes, max_pixels: int | None) -> Picture:
    opened = Image.open(io.BytesIO(data))
    refuse_bomb(*opened.size, max_pixels)
    frames = getattr(opened, "n_frames", 1)
    opened.load()
    image = ImageOps.exif_transpose(opened)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        pixels: Pixels = np.asarray(image).astype(np.uint16)
    elif image.mode in ("I", "F"):
        pixels = np.asarray(image).astype(np.float32)
    elif image.mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"))
    elif image.has_transparency_data:
        shown = image.convert("RGBA")
        pixels = np.asarray(Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB"))
    else:
        pixels = np.asarray(image.convert("RGB"))
    return Picture(pixels.reshape(*pixels.shape[:2], -1), frames)
