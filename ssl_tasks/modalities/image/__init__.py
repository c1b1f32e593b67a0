"""Images: read as they are, decoded once to a storage size, augmented and fed as whole batches.

decoding.py, readers.py   bytes to upright pixels, whatever the format
checking.py, looks.py   what is unusable; measures; prints for near duplicates
resize.py, placing.py   pixels to what is stored, and where each of them goes
targets.py              masks and boxes, brought to the same frame
statistics.py           quantiles, mean and deviation of stored train rows
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from ssl_tasks.errors import RequestError
from ssl_tasks.modalities import image_augment
from ssl_tasks.modalities.base import Checked, Stats, Vocabulary
from ssl_tasks.modalities.image import looks
from ssl_tasks.modalities.image.checking import check
from ssl_tasks.modalities.image.decoding import decode, partly, quietly
from ssl_tasks.modalities.image.readers import UnusableError
from ssl_tasks.modalities.image.resize import DEPTHS, becomes, require_channels, stored
from ssl_tasks.modalities.image.statistics import fit
from ssl_tasks.parallel import payload_map
from ssl_tasks.policy import ResolvedPolicy
from ssl_tasks.schema import PAYLOAD
from ssl_tasks.sources.base import SampleSource

FITTED = ("low", "high", "mean", "std")
KIND = ("channels", "depth")
SPARE = 3
"""Halves of the stored size that a JPEG is decoded to at least, so that the antialiasing filter has something to do."""
THUMBNAIL_SIDE = 96
THUMBNAIL_PIXELS = 1 << 27
"""Of what is decoded for a thumbnail: somewhat more than `clean.max_pixels` by default, and with as little memory."""
DEEP_CLIP = (0.1, 99.9)
"""Percentiles that stand for black and white where the dtype's own range does not: uint16 and float32."""


class ImageModality:
    """See `ssl_tasks.modalities.base.Modality`."""

    name = "image"

    def read(self, source: SampleSource, config: Any) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Encoded images, as the source has them."""
        return source.samples()

    def check(self, raw: pa.Table, config: Any) -> Checked:
        """Decodes every image; see `checking.check`."""
        return check(raw[PAYLOAD].to_pylist(), config)

    def thumbnails(self, raw: pa.Table) -> list[bytes | None]:
        """JPEG of at most 96 pixels a side; of a damaged file what can be decoded."""
        with quietly():
            return list(payload_map(_thumbnail, raw[PAYLOAD].to_pylist()))

    def learn(self, raw: Iterator[pa.Table], measures: Iterator[pa.Table] | None, config: Any) -> Vocabulary:
        """Channels and depth of what is stored: as the train rows have them, where the recipe does not say.

        16 bits where some of them have as many, in which 8 lose nothing, and three channels where some have colour.

        Raises:
            RequestError: the channels of a train row cannot become `normalize.channels`.
        """
        assert measures is not None, "clean measures images"
        kinds = {kind for table in measures for kind in zip(*(table[n].to_pylist() for n in KIND), strict=True)}
        counts, depths = {count for count, _ in kinds}, {depth for _, depth in kinds}
        channels = max(counts) if config.channels == "auto" else config.channels
        for have in sorted(counts):
            require_channels(have, channels)
        return {"size": config.size, "channels": channels, "depth": max(depths, key=DEPTHS.index)}

    def recall(self, stats: Stats, raw: Iterator[pa.Table], measures: Iterator[pa.Table] | None) -> Vocabulary:
        """Side, channels and depth of the encoder's images.

        Raises:
            RequestError: an image's channels or depth cannot become those.
        """
        assert measures is not None, "clean measures images"
        side, _, channels = stats["shape"]
        kinds = {kind for table in measures for kind in zip(*(table[n].to_pylist() for n in KIND), strict=True)}
        for have, depth in sorted(kinds):
            if not becomes((have, depth), (channels, stats["depth"])):
                raise RequestError(
                    f"normalize: the encoder takes images of {channels} channel{'s' * (channels != 1)} of "
                    f"{stats['depth']}, and some at ingest.path have {have} of {depth}, which cannot become such; give "
                    "it data like what it was trained on, or take another encoder"
                )
        return {"size": side, "channels": channels, "depth": stats["depth"]}

    def transform(self, raw: pa.Table, vocabulary: Vocabulary, config: Any) -> np.ndarray:
        """(N, size, size, channels), of the depth that was learned.

        Where train rows have 8 bits and another row has 16, its 65535 becomes their 255.
        """
        size, channels, depth = (vocabulary[name] for name in ("size", "channels", "depth"))

        def one(data: bytes | None) -> Any:
            assert data is not None, "clean has taken out what is missing"
            return stored(decode(data, least=spare(size)).pixels, size, channels, depth, config.fit)

        with quietly():
            images = list(payload_map(one, raw[PAYLOAD].to_pylist()))
        return np.stack(images) if images else np.empty((0, size, size, channels), depth)

    def fit(self, payload: Iterator[np.ndarray], vocabulary: Vocabulary, config: Any) -> Stats:
        """What stands for 0 and 1, and mean and deviation between them, per channel; see `statistics.fit`."""
        deep = vocabulary["depth"] != "uint8"
        clip = (DEEP_CLIP if deep else None) if config.clip_percentiles == "auto" else config.clip_percentiles
        fitted = fit(payload, clip)
        return {
            "modality": self.name,
            "shape": [vocabulary["size"], vocabulary["size"], vocabulary["channels"]],
            "depth": vocabulary["depth"],
            "input": config.input,
            **{name: getattr(fitted, name).tolist() for name in FITTED},
        }

    def augment(self, payload: Tensor, policy: ResolvedPolicy, keys: Tensor) -> Tensor:
        """See `image_augment.augment`."""
        return image_augment.augment(payload, policy, keys)

    def to_input(self, payload: Tensor, stats: Stats) -> Tensor:
        """(B, H, W, C) as stored to (B, C, H, W) float32: standardized, 0..1 or -1..1, as `normalize.input` says."""
        low, high, mean, std = (
            torch.tensor(stats[name], device=payload.device, dtype=torch.float32) for name in FITTED
        )
        values = payload.to(torch.float32, copy=True)  # changed in place below: 40 MB for 66 images of 224 px
        if _must_clip(stats):
            values = values.maximum(low).minimum(high)
        shift, scale = {
            "standard": (low + mean * (high - low), std * (high - low)),
            "unit": (low, high - low),
            "symmetric": ((low + high) / 2, (high - low) / 2),
        }[stats["input"]]
        return values.sub_(shift).div_(scale).permute(0, 3, 1, 2).contiguous()

    def input_shape(self, stats: Stats) -> tuple[int, ...]:
        """(C, H, W)."""
        height, width, channels = stats["shape"]
        return channels, height, width


MODALITY = ImageModality()


def spare(size: int) -> int:
    """Least pixels a side that a JPEG is decoded to for a stored size."""
    return SPARE * size // 2


def _must_clip(stats: Stats) -> bool:
    """Whether a stored value may lie beyond those that stand for black and white; told without looking at any."""
    if stats["depth"] == "float32":  # whose range is that of the train rows
        return True
    white = 255 if stats["depth"] == "uint8" else 65_535
    return any(low > 0 for low in stats["low"]) or any(high < white for high in stats["high"])


def _thumbnail(data: bytes | None) -> bytes | None:
    if data is None:
        return None
    try:
        pixels = decode(data, max_pixels=THUMBNAIL_PIXELS, least=THUMBNAIL_SIDE).pixels
    except UnusableError:
        found = partly(data)
        if found is None:
            return None
        pixels = found
    shown = looks.visible(pixels)
    image = Image.fromarray(shown if shown.shape[2] == 3 else shown[:, :, 0])
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
