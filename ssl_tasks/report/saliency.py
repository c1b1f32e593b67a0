"""Where the encoder looks: how far an embedding turns when a part of the picture is hidden.

Occlusion (Zeiler and Fergus, arXiv 1311.2901), scored by the cosine between embeddings, because an encoder has no class
to score (RELAX, Wickstrom et al., arXiv 2112.10161). It asks nothing of the network, so it serves a ResNet and a ViT, 8
pixels and 224, and draws no random number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from ssl_tasks.artifact import Artifact
from ssl_tasks.report import neighbours
from ssl_tasks.report.embedded import Float
from ssl_tasks.report.pictures import Pictures
from ssl_tasks.schema import LABEL

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, CELLS = 6, 8
"""Pictures that are shown, and fields of the map along a side."""
WINDOW = 2
"""Fields a side that are hidden at once: a quarter of the picture's."""
BATCH = 16
SIDE, SPACE = 96, 6
DEEPEST = 0.8
"""Opacity of the field that matters most."""


def section(splits: pa.Table, pretrain: Artifact, pictures: Pictures | None, modality: str) -> dict[str, Any] | None:
    """A line for each sample, for the template; None where samples are no images.

    Args:
        modality: the encoder's.
    """
    if pictures is None or modality != "image":
        return None
    import torch

    from ssl_tasks.device import pick
    from ssl_tasks.encoder import load_encoder, ready

    positions = neighbours.chosen(splits)[:SAMPLES]
    if not len(positions):
        return None
    device = pick("auto", "report")
    encoder = ready(load_encoder(pretrain), device)
    dtype = next(encoder.backbone.parameters()).dtype
    inputs = encoder.modality.to_input(torch.from_numpy(pictures.shards.take(positions)).to(device), encoder.stats)
    with torch.inference_mode():
        maps = [effect(encoder.backbone, image.to(dtype)) for image in inputs]
    uris = pictures.take(positions, SIDE)
    labels = splits[LABEL].take(pa.array(positions)).to_pylist()
    return {
        "window": WINDOW / CELLS,
        "samples": [
            {"svg": _overlay(uri, values, label or "a test picture"), "label": label, "most": f"{values.max():.2f}"}
            for uri, values, label in zip(uris, maps, labels, strict=True)
        ],
    }


def effect(encode: Callable[[Tensor], Tensor], image: Tensor) -> Float:
    """(G, G) mean of 1 - cosine between the embeddings of `image` and of it with a window hidden that holds the field.

    What is hidden gets the mean of its channel over the picture.

    Args:
        encode: (B, C, H, W) to (B, D).
        image: (C, H, W); G is `CELLS`, or fewer where the picture has fewer pixels.
    """
    from torch.nn import functional

    cells = min(CELLS, *image.shape[1:])
    rows, columns = (np.linspace(0, side, cells + 1).round().astype(int) for side in image.shape[1:])
    places = [(y, x) for y in range(cells - WINDOW + 1) for x in range(cells - WINDOW + 1)]
    mean, whole = image.mean(dim=(1, 2), keepdim=True), encode(image[None]).double()
    turned: list[float] = []
    for first in range(0, len(places), BATCH):
        part = places[first : first + BATCH]
        hidden = image.repeat(len(part), 1, 1, 1)
        for one, (y, x) in zip(hidden, part, strict=True):
            one[:, rows[y] : rows[y + WINDOW], columns[x] : columns[x + WINDOW]] = mean
        turned += (1 - functional.cosine_similarity(encode(hidden).double(), whole)).tolist()
    total, held = np.zeros((cells, cells)), np.zeros((cells, cells))
    for (y, x), value in zip(places, turned, strict=True):
        total[y : y + WINDOW, x : x + WINDOW] += value
        held[y : y + WINDOW, x : x + WINDOW] += 1
    result: Float = np.maximum(total / held, 0.0)  # equal embeddings may give a cosine of 1 and a bit
    return result


def _overlay(uri: str, values: Float, title: str) -> Markup:
    """An SVG element: the picture, and beside it the picture under the map."""
    cell, left = SIDE / len(values), SIDE + SPACE
    most = float(values.max()) or 1.0
    field = Markup('<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill-opacity="{:.2f}">{}</rect>')
    fields = [
        field.format(
            left + x * cell, y * cell, cell, cell, DEEPEST * value / most, Markup("<title>{:.3f}</title>").format(value)
        )
        for (y, x), value in np.ndenumerate(values)
    ]
    picture = Markup('<image x="{}" y="0" width="{}" height="{}" href="{}"/>')
    return Markup('<svg class="saliency" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        2 * SIDE + SPACE, SIDE, f"What the embedding of {title} depends on", picture.format(0, SIDE, SIDE, uri),
        picture.format(left, SIDE, SIDE, uri), Markup("").join(fields),
    )  # fmt: skip
