"""Augment: fix the policy that views are drawn from, with a preview.

Views frozen on disk would be the same in every epoch, so this stage writes the specification; Ray Data
executes it as a stream while the encoder is pretrained.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from ssl_tasks import modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config
from ssl_tasks.schema import STATS_FILE, VIEWS_FILE
from ssl_tasks.shards import Shards
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.ingest import parts
from ssl_tasks.store import Output

PREVIEW_SAMPLES, PREVIEW_VIEWS, PREVIEW_SCALE = 8, 5, 64


class AugmentConfig(Config):
    """SimCLR's policy (arXiv 2002.05709, appendix A) for images; the defaults are its values for small images."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the area that a crop covers, uniform."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = Field(0.5, ge=0, le=1)
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    jitter_probability: float = Field(0.8, ge=0, le=1)
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.4, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5)
    gray_probability: float = Field(0.2, ge=0, le=1)
    blur_probability: float = Field(0.0, ge=0, le=1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    modality: str = "image"
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is [smallest, largest], both above 0 (got {[low, high]})")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is a share of the area, at most 1 (got {self.crop_scale[1]})")
        return self


def run(config: AugmentConfig, out: Output, normalized: Artifact) -> Artifact:
    """Write `views.json` and, for images, `preview.png`: a sample and some of its views in each line."""
    out.json(VIEWS_FILE, config.model_dump(mode="json"))
    shards = Shards.open(normalized)
    if config.modality == "image":
        _preview(config, out, shards)
    shape = normalized.json(STATS_FILE)["shape"]
    return out.artifact(rows=normalized.rows, measured={"shape": shape})


def _preview(config: AugmentConfig, out: Output, shards: Shards) -> None:
    import torch
    from PIL import Image

    from ssl_tasks.randomness import row_keys

    positions = np.linspace(0, len(shards) - 1, min(PREVIEW_SAMPLES, len(shards))).astype(np.int64)
    originals = torch.from_numpy(shards.take(positions))
    columns = [originals]
    for view in range(PREVIEW_VIEWS):
        keys = row_keys(config.seed, view, torch.from_numpy(positions))
        columns.append(modalities.modality(config.modality).augment(originals, config, keys))
    sheet = torch.stack(columns, 1).numpy()  # samples, columns, H, W, C
    height, width, channels = sheet.shape[2:]
    pixels = sheet.transpose(0, 2, 1, 3, 4).reshape(len(positions) * height, (PREVIEW_VIEWS + 1) * width, channels)
    image = Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels)
    factor = max(1, round(PREVIEW_SCALE / width))
    with out.file("preview.png", rendering=True) as path:
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST).save(path)


STAGE = Stage("augment", AugmentConfig, ("normalize",), run, parts=parts)
