"""Thumbnails of stored samples as JPEG data URIs, for runs on images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.predictions import Int
from ssl_tasks.schema import STATS_FILE
from ssl_tasks.shards import Shards

QUALITY = 80
COLOURS = 3


@dataclass(frozen=True)
class Pictures:
    """The payload of a normalize artifact, to look at."""

    shards: Shards
    low: np.ndarray
    """(C,) stored values that are shown black."""
    high: np.ndarray
    """(C,) stored values that are shown white."""

    @classmethod
    def of(cls, normalize: Artifact) -> Pictures | None:
        """None where the samples are no images."""
        stats = normalize.json(STATS_FILE)
        if stats["modality"] != "image":
            return None
        return cls(Shards.open(normalize), np.array(stats["low"]), np.array(stats["high"]))

    def take(self, positions: Int, side: int) -> list[str]:
        """A data URI for each position, of at most `side` pixels a side; smaller ones grow by whole pixels."""
        return [data_uri(_jpeg(self._levels(image), side)) for image in self.shards.take(positions)]

    def levels(self, positions: Int) -> list[np.ndarray]:
        """Of each position (H, W) or (H, W, 3) uint8, as stored."""
        return [self._levels(image) for image in self.shards.take(positions)]

    def _levels(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) stored values as uint8, (H, W) grey or (H, W, 3) RGB; of more channels the first three."""
        shown = slice(0, COLOURS if image.shape[2] >= COLOURS else 1)
        low, high = self.low[shown], self.high[shown]
        share = (image[..., shown].astype(np.float64) - low) / np.maximum(high - low, 1e-12)
        levels: np.ndarray = (np.nan_to_num(share).clip(0, 1) * 255).round().astype(np.uint8)
        return levels if levels.shape[2] == COLOURS else levels[..., 0]


def data_uri(image: bytes, kind: str = "jpeg") -> str:
    """What stands in `src`."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _jpeg(levels: np.ndarray, side: int) -> bytes:
    image: Any = Image.fromarray(levels)
    largest = max(image.size)
    if largest > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    else:
        factor = side // largest
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)  # of 32 px the tables are half, unless optimized
    return stream.getvalue()
