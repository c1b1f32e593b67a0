"""Colour operations on planes (n, C, H, W), uint8 or floats from 0 to 1, by torchvision's definitions.

Each may change its argument. Factors are (n, 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_tasks.modalities.image_augment.storage import top_of, whole

LUMA = (0.2989, 0.587, 0.114)
"""ITU-R 601-2, as torchvision's `rgb_to_grayscale`."""


def luma(levels: Tensor) -> Tensor:
    """(n, 1, H, W) grey of float planes (n, 3, H, W)."""
    red, green, blue = levels.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])[:, None]


def gray(images: Tensor) -> Tensor:
    """The grey image in all three channels."""
    grey = luma(images.float())
    return images.copy_(whole(grey) if images.dtype == torch.uint8 else grey)


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order; the last two need three channels.

    Args:
        factors: (n, 4), the first three around 1, and turns of the colour circle from -0.5 to 0.5.
    """
    brightness, contrast, saturation, turns = factors[:, :, None].unbind(1)
    levels = tone(images.float(), brightness, contrast, top_of(images))
    colour = images.shape[1] == 3
    if colour:
        torch.lerp(luma(levels), levels, _wide(saturation), out=levels)
    if images.dtype == torch.uint8:
        levels = levels.to(torch.int16)  # cut off, as torchvision does; takes half the time of floats
    levels.clamp_(0, int(top_of(images)))
    if colour:
        levels = shift_hue(levels, turns)
    return levels.to(images.dtype)


def tone(levels: Tensor, brightness: Tensor, contrast: Tensor, top: float) -> Tensor:
    """Brightness, and contrast around the mean grey, of float planes from 0 to `top`; factors (n, 1).

    Grey is luma for three channels, else their mean. To multiply and cut off is to cut off sooner and multiply, so
    that both factors are applied in one pass.
    """
    torch.minimum(levels, _wide(top / brightness), out=levels)
    # torch splits a sum that has one result among threads, which would change the last bits of a grey image alone
    sums = levels.flatten(2).sum(2) if levels.shape[1] > 1 else levels.sum(3).sum(2)
    channels = sums / levels[0, 0].numel()
    weights = LUMA if levels.shape[1] == 3 else [1 / levels.shape[1]] * levels.shape[1]
    mean = brightness * (channels * levels.new_tensor(weights)).sum(1, keepdim=True)
    return levels.mul_(_wide(brightness * contrast)).add_(_wide(mean * (1 - contrast))).clamp_(0, top)


def shift_hue(levels: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of HSV, in planes (n, 3, H, W) of floats or int16, by `turns` (n, 1) from -0.5 to 0.5.

    With v and m the largest and smallest channel and d in [0, 1] sixths of a turn, red becomes
    |blue + d (v - m) - v| + red - green + m, cut off at m and v; green and blue likewise, each with the next channel
    and the one after. To the other side the channels stand in the other order; a third of a turn exchanges them.
    The result is that of going through HSV, in a fifteenth of the time.
    """
    result = torch.empty_like(levels)
    first = 0
    for (third, step), run in itertools.groupby(turns[:, 0].tolist(), _kind_of_turn):
        rows = slice(first, first := first + len(list(run)))
        sixths = (6 * turns[rows] - 2 * third).abs()[:, :, None]
        channels = result[rows].unbind(1)
        _turn(levels[rows].unbind(1), sixths, step, [channels[(channel + third) % 3] for channel in range(3)])
    return result


def _kind_of_turn(turns: float) -> tuple[int, int]:
    """Thirds of a turn, and to which side the rest goes, which is at most a sixth."""
    third = round(3 * turns)
    return third, 1 if 3 * turns >= third else -1


def _turn(levels: Sequence[Tensor], sixths: Tensor, step: int, result: Sequence[Tensor]) -> None:
    """From the three channels to those of `result`, each (n, H, W); `step` leads from a channel to the next."""
    most, least = torch.maximum(levels[0], levels[1]), torch.minimum(levels[0], levels[1])
    torch.maximum(most, levels[2], out=most)
    torch.minimum(least, levels[2], out=least)
    way = (most - least).float().mul_(sixths)
    way = (way if least.is_floating_point() else way.round_().to(least.dtype)).sub_(most)
    for channel, out in enumerate(result):
        after, before = levels[(channel + step) % 3], levels[(channel - step) % 3]
        torch.add(before, way, out=out).abs_().add_(levels[channel]).sub_(after).add_(least)
        torch.clamp(out, least, most, out=out)


def solarize(images: Tensor, threshold: float) -> Tensor:
    """Invert what is at or above `threshold`, on the 0..1 scale."""
    from torchvision.transforms.v2 import functional  # half a second to import

    inverted: Tensor = functional.solarize(images, threshold * top_of(images))
    return inverted


def equalize(images: Tensor) -> Tensor:
    """Flatten the histogram of each channel, in 256 levels."""
    from torchvision.transforms.v2 import functional

    flattened: Tensor = functional.equalize(images)
    return flattened


def _wide(factor: Tensor) -> Tensor:
    return factor[:, :, None, None]
