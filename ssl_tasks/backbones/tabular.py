"""Backbones for tables: the ReLU network of SCARF (arXiv 2106.15147, section 4): 4 layers of 256."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ssl_tasks.errors import RequestError

NAME = re.compile(r"mlp(?::([1-9]\d{0,4})x([1-9]\d?))?")


class MLP(nn.Module):
    """`depth` linear layers of `width`, a ReLU after each: (B, D) -> (B, width)."""

    def __init__(self, num_inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.num_features = width
        layers: list[nn.Module] = []
        for index in range(depth):
            linear = nn.Linear(num_inputs if index == 0 else width, width)
            # torch's default shrinks the signal by sqrt(6) a layer: rows of a deep network start out alike.
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, width) of rows (B, D)."""
        features: Tensor = self.layers(x)
        return features


def build(name: str, input_shape: tuple[int, ...]) -> nn.Module:
    """`mlp` or `mlp:<width>x<depth>`; see `build_backbone`."""
    match = NAME.fullmatch(name)
    if match is None:
        raise RequestError(
            f"pretrain.backbone: no backbone {name!r} for tables; there is mlp, or mlp:<width>x<depth> as in mlp:256x4"
        )
    (num_inputs,) = input_shape
    return MLP(num_inputs, width=int(match[1] or 256), depth=int(match[2] or 4))
