"""Image backbones: any network of timm, with a stem that suits small images.

A stem made for 224 pixels divides the resolution by four before the first block. At 32 pixels and below that
leaves hardly anything to look at, so ResNets get stride 1 there and no max pooling (SimCLR, arXiv 2002.05709,
appendix B.9).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from ssl_tasks.errors import RequestError

SMALL_SIDE = 64
"""Largest side in pixels at which `auto` chooses the small stem."""


def build(name: str, input_shape: tuple[int, ...], stem: str, view_sides: Mapping[str, int]) -> nn.Module:
    """A timm network without its classifier; see `build_backbone`."""
    channels, height, width = input_shape
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f", did you mean {', '.join(near)}?" if near else "; timm.list_models() names them all"
        raise RequestError(f"pretrain.backbone: timm has no model {name!r}{hint}")
    pretrained_cfg = timm.get_pretrained_cfg(name)
    sized = {"img_size": (height, width)} if pretrained_cfg and pretrained_cfg.fixed_input_size else {}
    others = {key: side for key, side in view_sides.items() if (side, side) != (height, width)}
    try:
        backbone = _create(name, channels, sized, any_size=bool(sized and others))
        if stem == "small" or (stem == "auto" and max(height, width) <= SMALL_SIDE and has_small_stem(backbone)):
            shrink_stem(backbone, name)
        num_features = _probe(backbone, input_shape)
    except RequestError:
        raise
    except Exception as error:  # each network refuses a size in its own way: assertions, type and runtime errors
        raise RequestError(f"pretrain.backbone: {name} cannot take inputs of shape {input_shape}: {error}") from error
    for key, side in others.items():
        _require_side(backbone, name, input_shape, key, side)
    # timm's own attribute leaves out the head's hidden layer that some networks (MobileNetV3) pool through.
    backbone.num_features = num_features  # type: ignore[assignment]  # nn.Module types attributes as Tensor | Module
    return backbone


def _create(name: str, channels: int, sized: Mapping[str, Any], *, any_size: bool) -> nn.Module:
    """The network; where `any_size` and its code can, one that interpolates its positions for inputs of other sizes.

    That adds no weights, so that an encoder needs it no more once it is trained.
    """
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels, **sized}
    if any_size:
        state = torch.get_rng_state()
        try:
            dynamic: nn.Module = timm.create_model(name, dynamic_img_size=True, **options)
            return dynamic
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            torch.set_rng_state(state)
    backbone: nn.Module = timm.create_model(name, **options)
    return backbone


def _require_side(backbone: nn.Module, name: str, input_shape: tuple[int, ...], key: str, side: int) -> None:
    channels, height, width = input_shape
    try:
        _probe(backbone, (channels, side, side))
    except Exception as error:  # see `build`
        raise RequestError(
            f"{key}: {name} takes images of {width} x {height} px, as normalize stores them, and no views of {side} x "
            f"{side} px ({error}); use views as large as the images, or another pretrain.backbone"
        ) from error


def has_small_stem(backbone: nn.Module) -> bool:
    """Whether the stem is a ResNet's: `conv1`, which may be a stack of convolutions, then `maxpool`."""
    return isinstance(_first_conv(backbone), nn.Conv2d) and isinstance(getattr(backbone, "maxpool", None), nn.Module)


def shrink_stem(backbone: nn.Module, name: str) -> None:
    """Stride 1 in the first convolution (3x3 where it was larger) and no max pooling, in place.

    Raises:
        RequestError: the network's stem is not a ResNet's.
    """
    conv = _first_conv(backbone)
    if conv is None or not has_small_stem(backbone):
        raise RequestError(f"pretrain.stem: {name} has no small stem, only ResNets have; use stem: standard")
    small = nn.Conv2d(conv.in_channels, conv.out_channels, 3, stride=1, padding=1, bias=conv.bias is not None)
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    if small.bias is not None:
        nn.init.zeros_(small.bias)
    if isinstance(backbone.conv1, nn.Sequential):
        backbone.conv1[0] = small
    else:
        backbone.conv1 = small
    backbone.maxpool = nn.Identity()


def _first_conv(backbone: nn.Module) -> nn.Conv2d | None:
    stem = getattr(backbone, "conv1", None)
    if isinstance(stem, nn.Sequential):
        stem = stem[0]
    return stem if isinstance(stem, nn.Conv2d) else None


@torch.no_grad()
def _probe(backbone: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Width of the features, found by one forward pass in eval mode."""
    backbone.eval()
    features = backbone(torch.zeros(1, *input_shape))
    backbone.train()
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise ValueError("it gives no single feature vector per image")
    return int(features.shape[1])
