"""What methods put on top of a backbone and throw away after pretraining."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.training.collectives import gather_with_grad


def bn_mlp(*widths: int, last: Literal["bare", "norm", "plain norm"] = "bare") -> nn.Sequential:
    """The heads of the joint-embedding papers: (B, widths[0]) -> (B, widths[-1]).

    Linear layers with batch norm and ReLU between each two. After the last: nothing, batch norm, or batch norm
    without weight and bias. Linear layers before a batch norm have no bias, which it would take away again.
    """
    layers: list[nn.Module] = []
    for number, (num_in, num_out) in enumerate(pairwise(widths), start=2):
        inner = number < len(widths)
        layers.append(nn.Linear(num_in, num_out, bias=not inner and last == "bare"))
        if inner or last != "bare":
            layers.append(nn.BatchNorm1d(num_out, affine=inner or last == "norm"))
        if inner:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers between `widths` with a ReLU between each two: (B, widths[0]) -> (B, widths[-1])."""
    layers: list[nn.Module] = []
    for num_in, num_out in pairwise(widths):
        layers += [nn.Linear(num_in, num_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def held(weight: Tensor, learns: Tensor) -> Tensor:
    """`weight`, whose gradient is zeros where `learns`, a () bool, is false: DDP waits for every parameter's."""
    return weight.detach() + learns.to(weight.dtype) * (weight - weight.detach())


class DirectionHead(nn.Module):
    """DINO's head (arXiv 2104.14294, appendix C): (..., num_features) -> (..., out_dim).

    Three linear layers with GELU, l2 normalization, and a last layer whose rows are of unit length: outputs are
    cosines. Neither batch norm nor biases at the end.
    """

    def __init__(self, num_features: int, hidden_dim: int, bottleneck_dim: int, out_dim: int) -> None:
        super().__init__()
        widths = (num_features, hidden_dim, hidden_dim, bottleneck_dim)
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise(widths):
            layers += [nn.Linear(num_in, num_out), nn.GELU()]
            nn.init.trunc_normal_(layers[-2].weight, std=0.02)  # type: ignore[arg-type]  # a linear layer's
            nn.init.zeros_(layers[-2].bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers[:-1])
        self.last = nn.Parameter(nn.init.trunc_normal_(torch.empty(out_dim, bottleneck_dim), std=0.02))

    def forward(self, features: Tensor, learns: Tensor | None = None) -> Tensor:
        """Outputs between -1 and 1; `learns`, a () bool, says whether the last layer does."""
        return self.outputs(self.directions(features), learns)

    def directions(self, features: Tensor) -> Tensor:
        """(..., bottleneck_dim), of unit length: what the last layer sees."""
        return functional.normalize(self.layers(features), dim=-1)

    def outputs(self, directions: Tensor, learns: Tensor | None = None) -> Tensor:
        """The last layer, which is linear: the mean of its outputs is its output of a mean."""
        last = self.last if learns is None else held(self.last, learns)
        return functional.linear(directions, functional.normalize(last, dim=1))


@torch.no_grad()
def projection_std(projections: Tensor) -> Tensor:
    """() spread of all ranks' projections (B, D): `training.health.feature_std`, whose fall the watchdog stops.

    A siamese network without a stopped gradient loses it first in its projections (SimSiam, arXiv 2011.10566, fig. 2).
    """
    directions = functional.normalize(projections.double(), dim=1)
    moments = torch.stack([directions.mean(dim=0), directions.square().mean(dim=0)])
    mean, square = gather_with_grad(moments[None]).mean(dim=0)
    std: Tensor = (square - mean.square()).clamp(min=0.0).sqrt().mean() * math.sqrt(projections.shape[1])
    return std


class ConvDecoder(nn.Module):
    """Pooled features back to an image: (B, num_features) -> (B, C, H, W).

    One linear layer makes a grid of at most `START` cells a side, which nearest-neighbour upsampling (no
    checkerboard, Odena et al. 2016) and 3x3 convolutions double until it covers the image; what is over is cut.
    """

    START = 4

    def __init__(self, num_features: int, output_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, self.height, self.width = output_shape
        num_doublings = max(0, math.ceil(math.log2(max(self.height, self.width) / self.START)))
        self.grid = (width, math.ceil(self.height / 2**num_doublings), math.ceil(self.width / 2**num_doublings))
        self.to_grid = nn.Linear(num_features, math.prod(self.grid))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(num_doublings))
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Images (B, C, H, W), not bounded."""
        x_BCHW: Tensor = functional.relu(self.to_grid(features)).view(-1, *self.grid)
        for conv in self.convs:
            x_BCHW = functional.relu(conv(functional.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")))
        images: Tensor = self.to_image(x_BCHW)[..., : self.height, : self.width]
        return images


def decoder(num_features: int, input_shape: tuple[int, ...], width: int) -> nn.Module:
    """Features back to inputs, (B, num_features) -> (B, *input_shape): of images by `ConvDecoder`, of tables by `mlp`.

    Args:
        width: channels of the convolutional decoder, or units of the hidden layer of a table's.
    """
    if len(input_shape) == 3:
        return ConvDecoder(num_features, input_shape, width)
    return mlp(num_features, width, *input_shape)
