"""Where the pixels of an image go in what is stored: the one rule for the image, its mask and its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Fit = Literal["crop", "pad", "stretch"]
IGNORED = 255
"""Of a mask: a pixel that counts nowhere."""


@dataclass(frozen=True)
class Place:
    """A part of an upright image of `seen` pixels, and where it stands, scaled, in the stored square of `size`."""

    seen: tuple[int, int]
    """Height and width that the image was decoded to, which may be less than the file's: JPEG can be read reduced."""
    size: int
    top: int
    left: int
    height: int
    width: int
    """Of the part that is stored."""
    out_top: int
    out_left: int
    out_height: int
    out_width: int

    def mask(self, mask_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(size, size) by the nearest pixel; `IGNORED` where there is no image.

        Args:
            mask_HW: upright, of the file's whole size.
        """
        rows, columns = (
            _nearest(start, length, out, whole / seen)
            for start, length, out, whole, seen in zip(
                (self.top, self.left),
                (self.height, self.width),
                (self.out_height, self.out_width),
                mask_HW.shape,
                self.seen,
                strict=True,
            )
        )
        stored = np.full((self.size, self.size), IGNORED, np.uint8)
        stored[self.out_top : self.out_top + self.out_height, self.out_left : self.out_left + self.out_width] = mask_HW[
            np.ix_(rows, columns)
        ]
        return stored

    def boxes(self, boxes_N4: NDArray[np.float64], whole: tuple[int, int]) -> NDArray[np.float64]:
        """(M, 4) x, y, width and height in stored pixels; what lies outside is cut off, and a box with nothing left
        is left out.

        Args:
            boxes_N4: in pixels of the upright file.
            whole: the file's height and width.
        """
        corners = np.concatenate([boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]], axis=1).reshape(-1, 2, 2)
        to_seen = np.array([self.seen[1] / whole[1], self.seen[0] / whole[0]])
        start, out = np.array([self.left, self.top]), np.array([self.out_left, self.out_top])
        scale = np.array([self.out_width / self.width, self.out_height / self.height])
        moved = (corners * to_seen - start) * scale + out
        moved = moved.clip(out, out + np.array([self.out_width, self.out_height]))
        sides = moved[:, 1] - moved[:, 0]
        kept: NDArray[np.float64] = np.concatenate([moved[:, 0], sides], axis=1)[(sides > 0).all(axis=1)]
        return kept


def place(height: int, width: int, size: int, fit: Fit) -> Place:
    """For an upright image of so many pixels.

    Args:
        fit: `crop` takes the middle square, `pad` keeps everything inside a frame, `stretch` changes the aspect.
    """
    seen = (height, width)
    if fit == "stretch":
        return Place(seen, size, 0, 0, height, width, 0, 0, size, size)
    if fit == "crop":
        side = min(height, width)
        return Place(seen, size, (height - side) // 2, (width - side) // 2, side, side, 0, 0, size, size)
    longer = max(height, width)
    out_height, out_width = (max(1, round(side * size / longer)) for side in seen)
    top, left = (round((size - side) / 2) for side in (out_height, out_width))
    return Place(seen, size, 0, 0, height, width, top, left, out_height, out_width)


def _nearest(start: int, length: int, out: int, scale: float) -> NDArray[np.int64]:
    """(out,) source index at the centre of each stored pixel; `scale` is from the decoded size to the whole one."""
    centres = (start + (np.arange(out) + 0.5) * length / out) * scale
    last = np.ceil((start + length) * scale) - 1
    found: NDArray[np.int64] = np.minimum(np.floor(centres), last).astype(np.int64)
    return found
