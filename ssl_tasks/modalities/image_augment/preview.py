"""A sheet to look at: in each line a sample and some views by each policy, at their true relative sizes."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_tasks.modalities.image_augment import augment
from ssl_tasks.policy import BASE, ResolvedPolicy, Views
from ssl_tasks.randomness import mix, row_keys, stream_key

CELL = 112
"""Side in pixels of the largest picture on the sheet; the report shows six columns where there is one policy."""
GAP = 4
VIEWS_OF_BASE, VIEWS_OF_OTHERS = 3, 2
PAPER, INK = (255, 255, 255), (60, 60, 60)
FONT_SIZE = 12


def sheet(payload: Tensor, positions: Tensor, views: Views) -> Image.Image:
    """Draw the sheet.

    Args:
        payload: (N, H, W, C) stored samples, of any dtype.
        positions: (N,) int64, from which with the seed the views are drawn.
    """
    keys = row_keys(views.seed, 0, positions)
    columns = [("sample", payload)]
    for name in sorted(views.policies, key=lambda name: (name != BASE, name)):
        for number in range(VIEWS_OF_BASE if name == BASE else VIEWS_OF_OTHERS):
            view_keys = mix(keys + stream_key(f"preview {name} {number}"))
            columns.append((name if number == 0 else "", augment(payload, views.policy(name), view_keys)))
    largest = max(max(images.shape[1:3]) for _, images in columns)
    policy = views.policy(BASE)
    pictures = [(title, [_picture(image, policy, largest) for image in images.unbind(0)]) for title, images in columns]
    return _laid_out(pictures)


def _picture(image: Tensor, policy: ResolvedPolicy, largest: int) -> Image.Image:
    """(H, W, C) as RGB, so that `largest` pixels fill a cell; of more than three channels the first three."""
    low, high = (torch.tensor(values)[: image.shape[2]] for values in (policy.low, policy.high))
    levels = ((image.float() - low) / (high - low) * 255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    shown = levels[..., :3] if levels.shape[2] >= 3 else np.repeat(levels[..., :1], 3, axis=2)
    picture = Image.fromarray(np.ascontiguousarray(shown))
    if largest <= CELL:  # whole pixels, so that a tiny image shows what it is made of
        factor = CELL // largest
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(1, picture.width * CELL // largest), max(1, picture.height * CELL // largest))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _laid_out(columns: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    font = ImageFont.load_default(FONT_SIZE)
    header = FONT_SIZE + 2 * GAP
    lines = [max(pictures[line].height for _, pictures in columns) for line in range(len(columns[0][1]))]
    widths = [
        max(math.ceil(font.getlength(title)), *(picture.width for picture in pictures)) for title, pictures in columns
    ]
    page = Image.new(
        "RGB", (sum(widths) + GAP * (len(widths) + 1), header + sum(lines) + GAP * (len(lines) + 1)), PAPER
    )
    draw = ImageDraw.Draw(page)
    left = GAP
    for (title, pictures), width in zip(columns, widths, strict=True):
        draw.text((left, GAP), title, INK, font)
        top = header + GAP
        for picture, height in zip(pictures, lines, strict=True):
            page.paste(picture, (left, top))
            top += height + GAP
        left += width + GAP
    return page
