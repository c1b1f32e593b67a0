"""Pieces of images as inputs of a backbone: cut anywhere, normalized each on its own, resized (jigsaw, context)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.randomness import uniform

LEAST = 2
"""Pixels a side of a patch: one pixel, normalized on its own, says nothing."""
LEAST_INPUT = 16
"""Pixels a side that patches are enlarged to at least, unless the image itself is smaller."""


def integers(keys: Tensor, stream: str, count: int, below: int) -> Tensor:
    """(B, count) int64 uniform in [0, below); the same ones in every precision."""
    return (uniform(keys, stream, count, torch.float64) * below).long()


def cut(images_BCHW: Tensor, tops: Tensor, lefts: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, T, C, *size): patch t of image b starts at row `tops[b, t]` and column `lefts[b, t]`, both (B, T) int64."""
    device = images_BCHW.device
    rows = (tops[..., None] + torch.arange(size[0], device=device))[..., :, None]  # (B, T, h, 1)
    columns = (lefts[..., None] + torch.arange(size[1], device=device))[..., None, :]
    image = torch.arange(len(tops), device=device)[:, None, None, None]
    return images_BCHW.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 1, 4, 2, 3)


def as_input(patches_BTCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """(B T, C, *size), every channel of every patch with mean 0 and variance 1, so that neither tells its place."""
    patches = functional.instance_norm(patches_BTCHW.flatten(0, 1))
    if patches.shape[2:] == size:
        return patches
    return functional.interpolate(patches, size, mode="bilinear", antialias=True)


def input_size(backbone: nn.Module, input_shape: tuple[int, ...], asked: int | None, key: str) -> tuple[int, int]:
    """Height and width that patches are resized to.

    Where nothing is `asked` for, half the image's and at least `LEAST_INPUT`, so that small patches survive the
    backbone's strides at a quarter of the cost; the image's own where the backbone takes no other.

    Raises:
        RequestError: the backbone takes no inputs of the size that was asked for; names `key`.
    """
    channels, *sides = input_shape
    if asked is None:
        height, width = (max(min(side, LEAST_INPUT), math.ceil(side / 2)) for side in sides)
        return (height, width) if refusal(backbone, (channels, height, width)) is None else (sides[0], sides[1])
    reason = refusal(backbone, (channels, asked, asked))
    if reason is not None:
        raise RequestError(
            f"pretrain.method.{key}: the backbone takes no inputs of {asked} x {asked} px ({reason}); leave it out"
        )
    return asked, asked


@torch.no_grad()
def refusal(backbone: nn.Module, shape: tuple[int, ...]) -> Exception | None:
    """Why the backbone takes no input of `shape`, or None where it does."""
    was_training = backbone.training
    weight = next(backbone.parameters())
    try:
        backbone.eval()(torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device))
    except Exception as error:  # each network refuses a size in its own way: assertions, type and runtime errors
        return error
    finally:
        backbone.train(was_training)
    return None
