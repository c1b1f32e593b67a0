"""A class for each pixel, by a linear head on the frozen feature map (1 x 1 convolution, upsampled bilinearly)."""

from __future__ import annotations

from ssl_tasks.transfer.base import Strategy
from ssl_tasks.transfer.dense import fit_head
from ssl_tasks.transfer.feature_maps import require_map
from ssl_tasks.transfer.targets import SEGMENTATION

STRATEGY = Strategy(
    "segmentation",
    "a linear segmentation head",
    fit_head,
    needs="maps",
    check=lambda blueprint: require_map(blueprint.backbone),
    tasks=frozenset({SEGMENTATION}),
    seeded=True,
)
