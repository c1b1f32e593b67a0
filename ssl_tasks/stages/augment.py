"""Augment: fix the policies that views are drawn from, with a preview.

Views frozen on disk would be the same in every epoch, so this stage writes the specification; Ray Data
executes it as a stream while the encoder is pretrained.

    augment:
      crop_scale: [0.2, 1]                      # the base policy, which every method uses
      policies:                                 # what single views do otherwise, for methods that ask for them by name
        second: {solarize_probability: 0.2, blur_probability: 0.1}
        local: {size: 16, crop_scale: [0.05, 0.4]}
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import semantic
from ssl_tasks.errors import RequestError
from ssl_tasks.policy import BASE, LOCAL, LOCAL_CROP_SCALE, PLAIN, Changes, Policy, Views
from ssl_tasks.schema import PREVIEW_FILE, STATS_FILE, VIEWS_FILE
from ssl_tasks.shards import Shards
from ssl_tasks.stages.base import Stage
from ssl_tasks.stages.ingest import parts
from ssl_tasks.store import Output

PREVIEW_SAMPLES = 8
WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""What stands for 1 where normalize has fitted nothing; 0 stands for 0."""


class AugmentConfig(Policy):
    """The base policy, and named ones that differ from it."""

    policies: dict[str, Changes] = Field(default_factory=dict)
    """By the name that a method asks for; a name that is not here is the base policy. `local`, the small crops of
    multi-crop, is half as wide and covers less wherever nothing else is said, and where it is not here, it has no masks
    that are too large for it."""
    modality: str = "image"
    seed: int = Field(0, ge=0)

    @field_validator("policies")
    @classmethod
    def _new_names(cls, value: dict[str, Changes]) -> dict[str, Changes]:
        for name in (BASE, PLAIN):
            if name in value:
                raise ValueError(f"{name!r} is no name for a policy: it stands for the base policy or the plain sample")
        return value

    @model_validator(mode="after")
    def _of_images(self) -> AugmentConfig:
        keys = [name for name in semantic(self) if name not in ("modality", "seed")]
        if self.modality == "tabular" and keys:
            raise ValueError(
                f"{', '.join(keys)}: means nothing for tables, whose methods corrupt rows themselves; leave it out"
            )
        return self


def run(config: AugmentConfig, out: Output, normalized: Artifact) -> Artifact:
    """Write `views.json` and, for images, `preview.png`: in each line a sample and views by every policy.

    Raises:
        RequestError: a policy does not fit the size of the images.
    """
    shards = Shards.open(normalized)
    stats = normalized.json(STATS_FILE)
    views = resolve(config, stats, shards.payloads[0].dtype)
    out.json(VIEWS_FILE, views.model_dump(mode="json"))
    if config.modality == "image":
        _preview(views, out, shards)
    return out.artifact(rows=normalized.rows, measured={"shape": stats["shape"], "policies": sorted(views.policies)})


def resolve(config: AugmentConfig, stats: dict[str, Any], dtype: np.dtype[Any]) -> Views:
    """All policies in full, with the numbers that were fitted on train rows."""
    fields = {"modality": config.modality, "seed": config.seed}
    base = Policy(**{name: getattr(config, name) for name in Policy.model_fields})
    policies = {BASE: base, **{name: changes.over(base) for name, changes in config.policies.items()}}
    if config.modality != "image":
        return Views(policies=policies, **fields)
    height, width, channels = stats["shape"]
    side = base.size or min(height, width)
    local = Changes(size=max(4, side // 2), crop_scale=LOCAL_CROP_SCALE).over(base)
    policies[LOCAL] = config.policies[LOCAL].over(local) if LOCAL in config.policies else _unmasked(local)
    for name, policy in policies.items():
        _check_patches(policy, policy.size or min(height, width), name)
    low = stats.get("low", [0.0] * channels)
    high = stats.get("high", [WHITE[dtype.name]] * channels)
    high = [top if top > bottom else bottom + 1.0 for bottom, top in zip(low, high, strict=True)]  # a constant channel
    return Views(policies=policies, low=low, high=high, fill=stats["mean"], **fields)


def _unmasked(local: Policy) -> Policy:
    """Small crops nobody wrote a word about, without masks where patches made for the whole view are too large."""
    assert local.size is not None
    return local.model_copy(update={"mask_probability": 0.0}) if _too_large(local, local.size) else local


def _too_large(policy: Policy, side: int) -> bool:
    return policy.mask_probability > 0 and policy.mask_patch * 2 > side


def _check_patches(policy: Policy, side: int, name: str) -> None:
    if _too_large(policy, side):
        key = "augment" if name == BASE else f"augment.policies.{name}"
        raise RequestError(
            f"{key}.mask_patch: {policy.mask_patch} px leaves no two patches beside each other in a view of {side} px"
        )


def _preview(views: Views, out: Output, shards: Shards) -> None:
    import torch

    from ssl_tasks.modalities.image_augment.preview import sheet

    positions = np.linspace(0, len(shards) - 1, min(PREVIEW_SAMPLES, len(shards))).astype(np.int64)
    image = sheet(torch.from_numpy(shards.take(positions)), torch.from_numpy(positions), views)
    with out.file(PREVIEW_FILE, rendering=True) as path:
        image.save(path)


STAGE = Stage("augment", AugmentConfig, ("normalize",), run, version=2, parts=parts)
