"""The largest box of an image, by a linear head on the frozen feature map: centre and size, by smooth L1."""

from __future__ import annotations

from ssl_tasks.transfer.base import Strategy
from ssl_tasks.transfer.dense import fit_head
from ssl_tasks.transfer.feature_maps import require_map
from ssl_tasks.transfer.targets import LOCALIZATION

STRATEGY = Strategy(
    "boxes",
    "a linear box head",
    fit_head,
    needs="maps",
    check=lambda blueprint: require_map(blueprint.backbone),
    tasks=frozenset({LOCALIZATION}),
    seeded=True,
)
