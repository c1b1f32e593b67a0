"""Files of pictures as other programs write them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from ssl_tasks.modalities.image.decoding import quietly

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (11, 17, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(RGB).resize((85, 55), Image.Resampling.BICUBIC))
GREY = RGB[:, :, 0]
DEEP = RANDOM.integers(0, 65536, (11, 17), dtype=np.uint16)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits with any number of channels, which Pillow cannot write."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def array(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def scene(bands: int, side: int, **options: Any) -> bytes:
    """A TIFF by GDAL; its blocks are left out where nothing is written."""
    from rasterio.io import MemoryFile

    with quietly(), MemoryFile() as memory:  # rasterio misses a georeference
        with memory.open(driver="GTiff", width=side, height=side, count=bands, dtype="uint8", **options) as sink:
            if not options.get("sparse_ok"):
                sink.write(np.random.default_rng(0).integers(0, 256, (bands, side, side), dtype=np.uint8))
        return bytes(memory.read())
