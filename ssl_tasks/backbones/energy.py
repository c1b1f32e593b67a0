"""Backbones of restricted Boltzmann machines: dense (Hinton 2010, "A practical guide to training RBMs", UTML TR
2010-003) and convolutional (Lee et al., ICML 2009). Features are the mean-field hidden units, in [0, 1].

Both give what the energy of a machine with gaussian visible units of unit variance needs,
E(v, h) = |v - b|^2 / 2 - sum_j h_j (c_j + (v W)_j): `drive`, the sums in parentheses, and `paint`, h W. The visible
biases b belong to the method, since features do not depend on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError

RBM = re.compile(r"rbm:([1-9]\d{0,4})")
CRBM = re.compile(r"crbm:([1-9]\d{0,3})x([1-9]\d?)")
GRID = 4
"""Cells a side that the convolutional machine's maps are averaged in."""
DRIVE_STD = 0.3
"""Of `drive` at the start, for inputs of unit variance: what the guide's weights of deviation 0.01 (section 8) give
with 1,000 inputs. With few inputs those would leave all features alike."""


class RBMBackbone(nn.Module):
    """What both machines share; `drive` and `paint` are theirs."""

    num_features: int
    visible_bias_shape: tuple[int, ...]
    """Of one visible bias for each input, or for each channel of the convolutional machine."""
    weight: nn.Parameter
    hidden_bias: nn.Parameter

    def drive(self, v: Tensor) -> Tensor:
        """What hidden units are told by the visible ones, biases included: c + v W."""
        raise NotImplementedError

    def paint(self, h: Tensor) -> Tensor:
        """What visible units are told by the hidden ones, without their biases: h W, of the shape of v."""
        raise NotImplementedError


class DenseRBM(RBMBackbone):
    """(B, *input_shape) -> (B, num_hidden)."""

    def __init__(self, input_shape: tuple[int, ...], num_hidden: int) -> None:
        super().__init__()
        self.input_shape, self.num_features = input_shape, num_hidden
        self.visible_bias_shape = input_shape
        num_visible = math.prod(input_shape)
        self.weight = nn.Parameter(torch.randn(num_hidden, num_visible) * (DRIVE_STD / math.sqrt(num_visible)))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))

    def drive(self, v: Tensor) -> Tensor:
        """(B, num_hidden)."""
        return functional.linear(v.flatten(1), self.weight, self.hidden_bias)

    def paint(self, h: Tensor) -> Tensor:
        """(B, *input_shape)."""
        return (h @ self.weight).view(-1, *self.input_shape)

    def forward(self, v: Tensor) -> Tensor:
        """P(h = 1 | v)."""
        return self.drive(v).sigmoid()


class ConvRBM(RBMBackbone):
    """(B, C, H, W) -> (B, num_filters * cells): maps of unpadded convolutions, averaged on a grid of at most 4 x 4."""

    def __init__(self, input_shape: tuple[int, int, int], num_filters: int, kernel: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.grid = (min(GRID, height - kernel + 1), min(GRID, width - kernel + 1))
        self.num_features = num_filters * math.prod(self.grid)
        self.visible_bias_shape = (channels, 1, 1)
        std = DRIVE_STD / math.sqrt(channels * kernel**2)
        self.weight = nn.Parameter(torch.randn(num_filters, channels, kernel, kernel) * std)
        self.hidden_bias = nn.Parameter(torch.zeros(num_filters))

    def drive(self, v: Tensor) -> Tensor:
        """(B, num_filters, H - kernel + 1, W - kernel + 1)."""
        return functional.conv2d(v, self.weight, self.hidden_bias)

    def paint(self, h: Tensor) -> Tensor:
        """(B, C, H, W)."""
        return functional.conv_transpose2d(h, self.weight)

    def forward(self, v: Tensor) -> Tensor:
        """P(h = 1 | v), averaged over the cells."""
        return functional.adaptive_avg_pool2d(self.drive(v).sigmoid(), self.grid).flatten(1)


def build(name: str, input_shape: tuple[int, ...], stem: str, view_sides: Mapping[str, int]) -> nn.Module:
    """`rbm:<hidden>`, or for images `crbm:<filters>x<kernel>`; see `build_backbone`."""
    dense, conv = RBM.fullmatch(name), CRBM.fullmatch(name)
    is_image = len(input_shape) == 3
    if dense is None and (conv is None or not is_image):
        crbm = ", and crbm:<filters>x<kernel> as in crbm:32x7" if is_image else " for tables"
        raise RequestError(f"pretrain.backbone: no backbone {name!r}; there is rbm:<hidden> as in rbm:512{crbm}")
    if stem == "small":
        raise RequestError(f"pretrain.stem: {name} has no small stem, only ResNets and ViTs have; use stem: standard")
    if dense is not None:
        _require_sides(name, input_shape, view_sides)
        return DenseRBM(input_shape, int(dense[1]))
    assert conv is not None
    channels, height, width = input_shape
    kernel = int(conv[2])
    for key, side in {"pretrain.backbone": min(height, width), **view_sides}.items():
        if side < kernel:
            raise RequestError(
                f"{key}: {name} takes images of at least {kernel} x {kernel} px, and these are of {side}"
            )
    return ConvRBM((channels, height, width), int(conv[1]), kernel)


def _require_sides(name: str, input_shape: tuple[int, ...], view_sides: Mapping[str, int]) -> None:
    for key, side in view_sides.items():
        if (side, side) != input_shape[1:]:
            raise RequestError(
                f"{key}: {name} takes images of {input_shape[2]} x {input_shape[1]} px, as normalize stores them, and "
                f"no views of {side} x {side} px; use views as large as the images, or another pretrain.backbone"
            )
