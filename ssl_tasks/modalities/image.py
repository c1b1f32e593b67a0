"""Images: encoded files, decoded once to a storage size as uint8 (H, W, C)."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ssl_tasks.modalities import image_augment
from ssl_tasks.modalities.base import Checked, Stats, Vocabulary
from ssl_tasks.parallel import ordered_map
from ssl_tasks.schema import PAYLOAD
from ssl_tasks.sources.base import SampleSource


class ImageModality:
    """See `ssl_tasks.modalities.base.Modality`."""

    name = "image"

    def read(self, source: SampleSource, config: Any) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Encoded images, as the source has them."""
        return source.samples()

    def check(self, raw: pa.Table, config: Any) -> list[Checked]:
        """Decodes every image; the key is a hash of the upright RGB pixels."""
        return list(ordered_map(lambda data: _check(data, config.max_pixels), _payloads(raw)))

    def learn(self, raw: Iterator[pa.Table], config: Any) -> Vocabulary:
        """Nothing: pixels are numbers already."""
        return {"size": config.size, "channels": config.channels}

    def transform(self, raw: pa.Table, vocabulary: Vocabulary, config: Any) -> np.ndarray:
        """(N, size, size, channels) uint8: the centre square, scaled with antialiasing."""
        size, channels = vocabulary["size"], vocabulary["channels"]
        images = list(ordered_map(lambda data: decode(data, size, channels), _payloads(raw)))
        return np.stack(images) if images else np.empty((0, size, size, channels), np.uint8)

    def fit(self, payload: Iterator[np.ndarray], vocabulary: Vocabulary, config: Any) -> Stats:
        """Mean and standard deviation per channel on the 0..1 scale; integer sums, so exact in any order."""
        channels = vocabulary["channels"]
        count, total, squares = 0, np.zeros(channels, np.int64), np.zeros(channels, np.int64)
        for batch in payload:
            values = batch.reshape(-1, channels)
            count += len(values)
            total += values.sum(0, dtype=np.int64)
            squares += np.stack([np.square(values[:, c], dtype=np.int64).sum() for c in range(channels)])
        mean = total / max(1, count)
        std = np.sqrt(np.maximum(squares / max(1, count) - mean**2, 1.0))  # at least one grey level
        shape = [vocabulary["size"], vocabulary["size"], channels]
        return {
            "modality": self.name,
            "shape": shape,
            "mean": (mean / 255).tolist(),
            "std": (std / 255).tolist(),
        }

    def augment(self, payload: Tensor, config: Any, keys: Tensor) -> Tensor:
        """See `image_augment.augment`."""
        return image_augment.augment(payload, config, keys)

    def to_input(self, payload: Tensor, stats: Stats) -> Tensor:
        """(B, H, W, C) uint8 to (B, C, H, W) float32 with mean 0 and deviation 1 over the train rows."""
        mean = torch.tensor(stats["mean"], device=payload.device) * 255
        std = torch.tensor(stats["std"], device=payload.device) * 255
        return ((payload.float() - mean) / std).permute(0, 3, 1, 2).contiguous()

    def input_shape(self, stats: Stats) -> tuple[int, ...]:
        """(C, H, W)."""
        height, width, channels = stats["shape"]
        return channels, height, width


MODALITY = ImageModality()


def decode(data: bytes, size: int, channels: int) -> np.ndarray:
    """One image file as (size, size, channels) uint8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # harmless oddities of files (corrupt EXIF) that `check` let pass
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (2 * size, 2 * size))  # JPEG only: decodes at a half, quarter or eighth where that suffices
        upright = _upright(image)
    fitted = ImageOps.fit(upright.convert("L" if channels == 1 else "RGB"), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(fitted).reshape(size, size, channels)


def _check(data: bytes, max_pixels: int) -> Checked:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > max_pixels:  # refused before decoding: a small file can ask for gigabytes
                return Checked("too_large", f"{width} x {height} pixels, clean.max_pixels is {max_pixels}")
            pixels = _upright(image).convert("RGB")
    except Image.DecompressionBombError as error:
        return Checked("too_large", str(error))
    except Exception as error:  # Pillow's decoders raise almost any type on broken files; the file is to blame
        return Checked("unreadable", f"{type(error).__name__}: {error}")
    hasher = hashlib.blake2b(f"{pixels.size}".encode(), digest_size=16)
    hasher.update(pixels.tobytes())
    return Checked(key=hasher.hexdigest())


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion to 8 bits clips at 255
        return Image.fromarray((np.asarray(upright, np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return upright


def _payloads(raw: pa.Table) -> list[bytes]:
    values: list[bytes] = raw[PAYLOAD].to_pylist()
    return values
