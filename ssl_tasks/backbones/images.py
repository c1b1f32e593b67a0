"""Image backbones: any network of timm, with a stem that suits small images."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from ssl_tasks.backbones import stems
from ssl_tasks.errors import RequestError


def build(name: str, input_shape: tuple[int, ...], stem: str, pool: str, view_sides: Mapping[str, int]) -> nn.Module:
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
        backbone = _with_stem(name, channels, (height, width), stem, sized, any_size=bool(sized and others))
        if pool == "average" and getattr(backbone, "global_pool", None) == "token":
            backbone.global_pool = "avg"  # type: ignore[assignment]  # nn.Module types attributes as Tensor | Module
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


def _with_stem(
    name: str, channels: int, sides: tuple[int, int], stem: str, sized: Mapping[str, Any], *, any_size: bool
) -> nn.Module:
    state = torch.get_rng_state()
    backbone = _create(name, channels, sized, any_size=any_size)
    if not stems.wants_small(stem, backbone, name, *sides):
        return backbone
    if stems.has_patches(backbone):
        torch.set_rng_state(state)
        patch = stems.small_patch(backbone, *sides)
        return _create(name, channels, {**sized, "patch_size": patch}, any_size=any_size)
    stems.shrink_convolutions(backbone)
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


@torch.no_grad()
def _probe(backbone: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Width of the features, found by one forward pass in eval mode."""
    backbone.eval()
    features = backbone(torch.zeros(1, *input_shape))
    backbone.train()
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        raise ValueError("it gives no single feature vector per image")
    return int(features.shape[1])
