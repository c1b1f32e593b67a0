"""Stems for small images: what a network looks at first, made for 224 pixels, leaves nothing to look at below 64.

ResNets divide the resolution by four before the first block, and get stride 1 there and no max pooling (SimCLR, arXiv
2002.05709, appendix B.9). ViTs cut 224 pixels into 14 patches a side, and get patches of an eighth of the side.
"""

from __future__ import annotations

import math

from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ssl_tasks.errors import RequestError

SMALL_SIDE = 64
"""Largest side in pixels at which `auto` chooses the small stem."""
PATCHES_A_SIDE = 8
SMALLEST_PATCH = 2


def wants_small(stem: str, backbone: nn.Module, name: str, height: int, width: int) -> bool:
    """Whether `backbone` is to get its small stem.

    Raises:
        RequestError: it is asked for and there is none.
    """
    there = has_small_convolutions(backbone) or has_patches(backbone)
    if stem == "small" and not there:
        raise RequestError(f"pretrain.stem: {name} has no small stem, only ResNets and ViTs have; use stem: standard")
    return there and (stem == "small" or (stem == "auto" and max(height, width) <= SMALL_SIDE))


def has_patches(backbone: nn.Module) -> bool:
    """Whether it is a ViT that cuts its input into patches by one convolution."""
    return isinstance(backbone, VisionTransformer) and type(backbone.patch_embed) is PatchEmbed


def require_whole_patches(backbone: nn.Module, name: str, input_shape: tuple[int, ...]) -> None:
    """Patches must cover the image: timm would leave out what is over, without a word.

    Raises:
        RequestError: they do not.
    """
    embed = getattr(backbone, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return
    for side, patch in zip(input_shape[1:], embed.patch_size, strict=True):
        if side % patch:
            multiples = [size for size in (side // patch * patch, (side // patch + 1) * patch) if size > 0]
            raise RequestError(
                f"pretrain.backbone: {name} cuts images into patches of {patch} px, and {side} px are no multiple of "
                f"that; set normalize.size={' or '.join(map(str, multiples))}, or take another patch size"
            )


def small_patch(vit: nn.Module, height: int, width: int) -> int:
    """Side in pixels of a small stem's patches, never larger than those that `vit` has.

    The largest that divides the image and either gives eight patches a side or is at most `SMALLEST_PATCH`.
    """
    assert isinstance(vit, VisionTransformer)
    common = math.gcd(height, width)
    largest = min(max(SMALLEST_PATCH, min(height, width) // PATCHES_A_SIDE), vit.patch_embed.patch_size[0])
    return max(side for side in range(1, largest + 1) if common % side == 0)


def has_small_convolutions(backbone: nn.Module) -> bool:
    """Whether the stem is a ResNet's: `conv1`, which may be a stack of convolutions, then `maxpool`."""
    return isinstance(_first_conv(backbone), nn.Conv2d) and isinstance(getattr(backbone, "maxpool", None), nn.Module)


def shrink_convolutions(backbone: nn.Module) -> None:
    """Stride 1 in the first convolution (3x3 where it was larger) and no max pooling, in place."""
    conv = _first_conv(backbone)
    assert conv is not None
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
