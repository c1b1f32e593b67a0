"""Which layer of a backbone a parameter stands in, as timm groups them; a plain stack counts its own layers.

depths(backbone, coarse=True)     # {"conv1.weight": 0, "layer1.0.conv1.weight": 1, ...}
"""

from __future__ import annotations

from typing import Any

from torch import nn


def depths(backbone: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Name of each parameter to its layer, from 0 at the input, without gaps.

    Args:
        coarse: by stages where the network has such, else by blocks.
    """
    groups = _timm_groups(backbone, coarse) if hasattr(backbone, "group_matcher") else _stack(backbone)
    place = {number: index for index, number in enumerate(sorted(set(groups.values())))}
    return {name: place[number] for name, number in groups.items()}


def num_layers(depth_of: dict[str, int]) -> int:
    """How many layers there are."""
    return 1 + max(depth_of.values())


def freeze_below(backbone: nn.Module, depth_of: dict[str, int], first: int) -> None:
    """Let parameters need a gradient from layer `first` on, and no other."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(depth_of[name] >= first)


def _timm_groups(backbone: Any, coarse: bool) -> dict[str, int]:
    from timm.models import group_parameters

    by_layer = group_parameters(backbone, backbone.group_matcher(coarse=coarse))
    found = {name: int(number) for number, names in by_layer.items() for name in names}
    return {name: found[name] for name, _ in backbone.named_parameters()}


def _stack(backbone: nn.Module) -> dict[str, int]:
    def number(name: str) -> int:
        first, _, rest = name.partition(".")
        return int(rest.partition(".")[0]) if first == "layers" else 0

    return {name: number(name) for name, _ in backbone.named_parameters()}
