"""Readers for what Pillow cannot hold: arrays, DICOM, colour of 16 bits, many bands.

All but arrays need an extra: `pip install 'pretextflow[dicom]'`, `pip install 'pretextflow[geotiff]'`. Without it the
run is refused and the file is not put into quarantine: equal input must give equal results whatever is installed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib import format as npy
from PIL import Image, UnidentifiedImageError

from ssl_tasks.errors import RequestError

Read = Callable[[bytes, int | None], tuple[Any, int]]
"""(bytes, max_pixels) -> ((H, W, C) pixels, number of frames)."""

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, EXTRA_SAMPLES = 258, 262, 277, 338
CMYK = 5
ALPHA = (1, 2)
"""Of EXTRA_SAMPLES: premultiplied, and not. GDAL writes 2 for any fourth band of bytes unless told otherwise."""
GEOREFERENCE = (33550, 33922, 34264, 34735)
"""Scale of a pixel, tie points, a matrix, the keys of a projection: a scene, whose bands are all measurements."""
DEEP_PNG = (b"\x10\x02", b"\x10\x04", b"\x10\x06")
"""Bytes 24 and 25: 16 bits; colour, grey with alpha, colour with alpha."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

MAX_BANDS = 1024
"""More than any instrument has: hyperspectral ones have some hundreds."""
BYTES_PER_PIXEL = 16
"""Of the bands of a TIFF together, at `clean.max_pixels`; at fewer pixels there may be more bands."""


class UnusableError(Exception):
    """A sample that cannot be used: a reason in one word with underscores, and what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def refuse_bomb(width: int, height: int, max_pixels: int | None) -> None:
    """A small file can ask for gigabytes.

    Raises:
        UnusableError: its header announces more than `max_pixels`.
    """
    if max_pixels is not None and width * height > max_pixels:
        raise UnusableError("too_large", f"{width} x {height} pixels, clean.max_pixels is {max_pixels}")


def _refuse_many_bands(source: Any, max_pixels: int | None) -> None:
    """See `refuse_bomb`; a sparse TIFF announces as many bands as it likes."""
    if source.count > MAX_BANDS:
        raise UnusableError("too_large", f"{source.count} bands, and at most {MAX_BANDS} are read")
    widest = max(16 if kind.startswith("complex") else np.dtype(kind).itemsize for kind in source.dtypes)
    needed = source.width * source.height * source.count * widest
    if max_pixels is not None and needed > BYTES_PER_PIXEL * max_pixels:
        raise UnusableError(
            "too_large",
            f"{source.width} x {source.height} pixels of {source.count} bands take {needed} bytes, and at most "
            f"{BYTES_PER_PIXEL} times clean.max_pixels, {max_pixels}, are read",
        )


def find(data: bytes) -> Read | None:
    """The reader that these bytes need; None where Pillow does."""
    if data.startswith(b"\x93NUMPY"):
        return _array
    if data[128:132] == b"DICM":
        return _dicom
    if data.startswith(b"\x89PNG") and data[24:26] in DEEP_PNG:
        return _deep_png
    if data.startswith(TIFF) and not _pillow_holds(data):
        return _tiff
    return None


def _pillow_holds(data: bytes) -> bool:
    """Whether Pillow reads a TIFF without loss: one sample of any depth, colour of 8 bits, alpha that is alpha."""
    try:
        tags: Any = Image.open(io.BytesIO(data)).tag_v2  # type: ignore[attr-defined]  # a TIFF has it
    except UnidentifiedImageError:
        return False
    samples = tags.get(SAMPLES_PER_PIXEL, 1)
    if samples == 1:
        return True
    if max(tags.get(BITS_PER_SAMPLE, (1,))) > 8 or samples > 4:
        return False
    return bool(samples == 3 or (samples == 4 and tags.get(PHOTOMETRIC) == CMYK) or _has_alpha(tags))


def _has_alpha(tags: Any) -> bool:
    """Whether the last sample says how opaque a pixel is, and is no band such as near infrared."""
    extra = tags.get(EXTRA_SAMPLES, ())
    kinds = extra if isinstance(extra, tuple) else (extra,)
    return kinds[-1:] in [(kind,) for kind in ALPHA] and not any(tag in tags for tag in GEOREFERENCE)


def _array(data: bytes, max_pixels: int | None) -> tuple[Any, int]:
    """`numpy.load` would take the memory that a header asks for before it sees that the values are not there."""
    stream = io.BytesIO(data)
    read_header = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if len(shape) not in (2, 3) or min(shape) < 1 or dtype not in (np.uint8, np.uint16, np.float32):
        raise UnusableError("wrong_shape", f"an array {shape} of {dtype}, not (H, W) or (H, W, C)")
    refuse_bomb(shape[1], shape[0], max_pixels)
    count = math.prod(shape)
    if len(data) - stream.tell() < count * dtype.itemsize:
        raise UnusableError("truncated", f"{len(data)} bytes, too few for an array {shape} of {dtype}")
    values = np.frombuffer(data, dtype, count, stream.tell()).reshape(shape, order="F" if fortran else "C")
    return values.reshape(*shape[:2], -1).copy(), 1


def _dicom(data: bytes, max_pixels: int | None) -> tuple[Any, int]:
    """Modality values (Hounsfield units where the file has a slope and intercept) as float32, else uint16 or uint8."""
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, pixel_array
    except ImportError as error:
        raise RequestError("a DICOM file needs pydicom: pip install 'pretextflow[dicom]'") from error
    found = pydicom.dcmread(io.BytesIO(data))
    refuse_bomb(int(found.Columns), int(found.Rows), max_pixels)
    frames, samples = int(found.get("NumberOfFrames", 1)), int(found.get("SamplesPerPixel", 1))
    pixels = pixel_array(found, index=0)  # all frames of a small file may take gigabytes
    values: Any = apply_modality_lut(pixels, found) if samples == 1 else pixels
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.float32)
    if found.get("PhotometricInterpretation") == "MONOCHROME1":  # the least value is white
        values = values.max() - values + values.min()
    return values.reshape(*values.shape[:2], -1), frames


def _tiff(data: bytes, max_pixels: int | None) -> tuple[Any, int]:
    """All bands in order; pixels without data are 0, and no band says of the others that they have none."""
    return _bands(data, max_pixels, masked=True), 1


def _deep_png(data: bytes, max_pixels: int | None) -> tuple[Any, int]:
    """Of which Pillow would keep the upper 8 bits."""
    refuse_bomb(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), max_pixels)
    values = _bands(data, max_pixels, masked=False)
    if values.shape[2] in (2, 4):  # the last one says how opaque a pixel is
        opaque = values[:, :, -1:] / 65535
        values = np.rint(values[:, :, :-1] * opaque + 65535 * (1 - opaque)).astype(np.uint16)
    return values, 1


def _bands(data: bytes, max_pixels: int | None, *, masked: bool) -> Any:
    """(H, W, bands), by GDAL."""
    try:
        from rasterio.enums import MaskFlags
        from rasterio.io import MemoryFile
    except ImportError as error:
        raise RequestError(
            "a TIFF or PNG of more than 8 bits and several channels, or a TIFF with bands besides colour, needs "
            "rasterio: pip install 'pretextflow[geotiff]'"
        ) from error
    with MemoryFile(data) as memory, memory.open() as source:
        refuse_bomb(source.width, source.height, max_pixels)
        _refuse_many_bands(source, max_pixels)
        masked = masked and not any(MaskFlags.alpha in flags for flags in source.mask_flag_enums)
        values = source.read(masked=True).filled(0) if masked else source.read()
    values = values if values.dtype in (np.uint8, np.uint16) else values.astype(np.float32)
    return np.ascontiguousarray(values.transpose(1, 2, 0))
