"""Jigsaw: say in which of many orders the tiles of an image were shuffled (arXiv 1603.09246).

pretrain: {method: {name: jigsaw, grid: 2}}
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import mlp
from ssl_tasks.methods.pieces import LEAST, as_input, cut, input_size, integers

NUM_PERMUTATIONS = 1000
TAKEN = np.iinfo(np.int32).min // 2
"""For a sum of distances: stays below all others whatever is added to it."""


class JigsawConfig(MethodConfig):
    """Defaults of the paper, sections 3.2 and 4.2; images below 32 pixels want `grid: 2`, small data 100 orders."""

    name: Literal["jigsaw"]
    grid: Literal[2, 3] = 3
    """Tiles a side."""
    gap: float = Field(11 / 75, ge=0, lt=1)
    """Share of a cell's side that a tile leaves free, rounded up; where in its cell it lies is random, so that edges
    do not give the neighbours away. A tile keeps at least 2 pixels a side."""
    num_permutations: int | None = Field(None, ge=2)
    """Orders to tell apart: the paper's 1000 of a 3 x 3 grid and all 24 of 2 x 2 where not set."""
    tile_size: int | None = Field(None, ge=LEAST)
    """Pixels a side that tiles are resized to for the backbone: half the image's where not set, at least 16; the
    image's own where the backbone takes no other. All tiles together cost (grid * tile_size / image size)^2 images."""
    tile_dim: int = Field(1024, ge=1)
    """Of what the head keeps of each tile."""
    hidden_dim: int = Field(4096, ge=1)

    @model_validator(mode="after")
    def _there_are_as_many(self) -> Self:
        most = math.factorial(self.grid**2)
        if self.num_permutations is not None and self.num_permutations > most:
            raise ValueError(f"num_permutations: {self.grid} x {self.grid} tiles have {most} orders")
        return self


@functools.cache
def permutation_set(num_tiles: int, count: int) -> Tensor:
    """(count, num_tiles) int64: orders far from each other in Hamming distance, picked greedily (algorithm 1).

    The next is the one with the largest sum of distances to those before. The paper starts at random; this starts
    with the identity. Once every tile has been in every place the sums tie, and by number alone a near copy of
    the first would be next: ties go to the largest smallest distance, then to the first in lexicographic order.
    """
    every = np.array(list(itertools.permutations(range(num_tiles))), dtype=np.uint8).T.copy()  # (num_tiles, all orders)
    total = np.zeros(every.shape[1], np.int32)
    least = np.full(every.shape[1], num_tiles, np.uint8)
    chosen = [0]
    while len(chosen) < count:
        distance = np.zeros_like(least)
        for tiles in every:  # one place after the other takes a tenth of the time of one big comparison
            distance += tiles != tiles[chosen[-1]]
        total += distance
        np.minimum(least, distance, out=least)
        total[chosen[-1]] = TAKEN
        farthest = np.flatnonzero(total == total.max())
        chosen.append(int(farthest[least[farthest].argmax()]))
    return torch.from_numpy(every[:, chosen].T.astype(np.int64))


def cell_and_tile(side: int, grid: int, gap: float) -> tuple[int, int]:
    """Pixels of a cell and of a tile along a side.

    Raises:
        RequestError: the side has no room for tiles of 2 pixels.
    """
    cell = side // grid
    if cell < LEAST:
        raise RequestError(
            f"pretrain.method.grid: {grid} tiles a side need images of {grid * LEAST} px or more, and these have {side}"
        )
    return cell, max(LEAST, cell - math.ceil(gap * cell - 1e-9))


class Jigsaw(Method):
    """Backbone on every tile, and a classifier of orders on what all tiles gave."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment",))
    permutations: Tensor
    """(num_permutations, grid^2) int64: which tile stands in each place."""

    def __init__(self, config: JigsawConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        for side in input_shape[1:]:
            cell_and_tile(side, config.grid, config.gap)
        self.size = input_size(backbone, input_shape, config.tile_size, "tile_size")
        num_tiles = config.grid**2
        count = config.num_permutations or min(NUM_PERMUTATIONS, math.factorial(num_tiles))
        self.register_buffer("permutations", permutation_set(num_tiles, count).clone(), persistent=False)
        self.tile_head = nn.Sequential(nn.Linear(self.num_features, config.tile_dim), nn.ReLU(inplace=True))
        self.classifier = mlp(num_tiles * config.tile_dim, config.hidden_dim, count)

    def shuffled(self, images_BCHW: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles (B, grid^2, C, h, w), each from a random place in its cell, and the number (B,) of their order."""
        grid, axes = self.config.grid, []
        order = integers(keys, "jigsaw.permutation", 1, len(self.permutations))[:, 0]
        places = self.permutations[order]  # (B, grid^2)
        size = []
        for side, number, name in zip(images_BCHW.shape[2:], (places // grid, places % grid), "yx", strict=True):
            cell, tile = cell_and_tile(side, grid, self.config.gap)
            shift = integers(keys, f"jigsaw.{name}", grid**2, cell - tile + 1)
            axes.append((side - grid * cell) // 2 + number * cell + shift)
            size.append(tile)
        return cut(images_BCHW, axes[0], axes[1], (size[0], size[1])), order

    def chance(self) -> dict[str, float]:
        """Of all orders."""
        return {"loss": math.log(len(self.permutations))}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the cross entropy over orders (log num_permutations at chance), and `permutation_accuracy`."""
        (view,) = batch.views
        tiles, order = self.shuffled(view, batch.keys)
        features = self.tile_head(self.backbone(as_input(tiles, self.size)))
        logits = self.classifier(features.view(len(view), -1))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        accuracy = (logits.detach().argmax(dim=1) == order).float().mean()
        return {"loss": functional.cross_entropy(logits, order), "permutation_accuracy": accuracy}


SPEC = MethodSpec(
    name="jigsaw",
    config=JigsawConfig,
    method=Jigsaw,
    modalities=("image",),
    family="prediction of a place",
    paper="Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, arXiv 1603.09246",
)
