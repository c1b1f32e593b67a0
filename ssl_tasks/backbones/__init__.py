"""The networks that transfer: timm for images, small well-known encoders for the rest.

    backbone = build_backbone("resnet18", modality="image", input_shape=(3, 32, 32), seed=0)
    backbone(torch.zeros(4, 3, 32, 32)).shape       # (4, backbone.num_features)

`num_features` is an attribute of every backbone; `input_shape` is (C, H, W) or (D,).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import nn

from ssl_tasks.errors import RequestError

Pool = Literal["network", "average"]
STEMS = ("auto", "small", "standard")
NO_VIEWS: Mapping[str, int] = MappingProxyType({})


def build_backbone(
    name: str,
    *,
    modality: str,
    input_shape: tuple[int, ...],
    stem: str = "auto",
    pool: Pool = "network",
    seed: int = 0,
    view_sides: Mapping[str, int] = NO_VIEWS,
) -> nn.Module:
    """An untrained backbone, (B, *input_shape) -> (B, num_features).

    Args:
        name: a timm name for images; `mlp` or `mlp:<width>x<depth>` for tables. For the method rbm: `rbm:<hidden>`
            for both, `crbm:<filters>x<kernel>` for images.
        stem: of images: `small` keeps the resolution in the first layers or cuts small patches, `standard` is the
            network as published, `auto` is small up to 64 pixels a side where the network has such a stem.
        pool: `average` takes the mean of a ViT's patch tokens as its features, where the network itself would take the
            class token.
        seed: of the initialization; the global random generator is left as it was.
        view_sides: pixels a side of the views of images that it is trained on as well, by the key that sets them.

    Raises:
        RequestError: an unknown name, stem or modality, or an input or view that the network cannot take.
    """
    if stem not in STEMS:
        raise RequestError(f"pretrain.stem: {stem!r} is not one of {', '.join(STEMS)}")
    # CPU only: networks are made there, and torch.manual_seed would reset the generators of every GPU.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if modality in ("image", "tabular") and name.partition(":")[0] in ("rbm", "crbm"):
            from ssl_tasks.backbones import energy

            return energy.build(name, input_shape, stem, view_sides)
        if modality == "image":
            from ssl_tasks.backbones import images  # timm costs seconds

            return images.build(name, input_shape, stem, pool, view_sides)
        if modality == "tabular":
            from ssl_tasks.backbones import tabular

            return tabular.build(name, input_shape)
    raise RequestError(f"pretrain.backbone: there are no backbones for modality {modality!r}")
