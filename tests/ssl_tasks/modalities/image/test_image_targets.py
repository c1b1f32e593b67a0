"""Masks and boxes go where their image goes: every fit, every orientation, reduced JPEGs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_dense import box_of

from ssl_tasks.modalities.image.decoding import decode
from ssl_tasks.modalities.image.placing import IGNORED, place
from ssl_tasks.modalities.image.readers import UnusableError
from ssl_tasks.modalities.image.resize import stored
from ssl_tasks.modalities.image.targets import check_boxes, read_mask, transform, turned_boxes

BLOCK = 8
FITS = ("crop", "pad", "stretch")
ORIENTATIONS = range(1, 9)


def encoded(pixels: np.ndarray, form: str = "PNG", orientation: int | None = None, **options: Any) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def blocks(height: int, width: int, block: int = BLOCK) -> np.ndarray:
    """(height, width) numbers 0 to 24, in blocks."""
    small = np.random.default_rng(0).integers(0, 25, (-(-height // block), -(-width // block)))
    return np.kron(small, np.ones((block, block)))[:height, :width].astype(np.uint8)


def both(mask: np.ndarray, image: bytes, size: int, fit: Any, least: int = 0, mask_file: bytes | None = None) -> Any:
    upright = decode(image).pixels.shape[:2]
    vocabulary = {"size": size, "channels": 1, "depth": "uint8"}
    images, masks, _ = transform(
        [image], [mask_file or encoded(mask)], None, [(upright[0], upright[1])], vocabulary, fit, least
    )
    assert masks is not None
    return images[0, :, :, 0], masks[0]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("fit", FITS)
def test_a_mask_takes_the_geometry_of_its_image(fit: str, orientation: int) -> None:
    """The image shows its own mask, and the stored ones agree; less so a pixel off in any direction, or turned."""
    mask = blocks(5 * BLOCK, 9 * BLOCK)
    image, found = both(mask, encoded(mask * 10, orientation=orientation), 24, fit)
    inside = found != IGNORED
    assert (image[~inside] == 0).all()
    assert inside.all() == (fit != "pad")

    def away(other: np.ndarray) -> float:
        return float(np.abs(image / 10 - np.where(other == IGNORED, 0, other)).mean())

    others = [np.roll(found, step, axis) for step in (1, -1) for axis in (0, 1)]
    others += [found[::-1], found[:, ::-1], found[::-1, ::-1], found.T]
    assert away(found) < 0.6 * min(map(away, others))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("fit", FITS)
def test_pixels_that_only_move_agree_exactly(fit: str, orientation: int) -> None:
    """Twice as large, nothing is mixed in the middle of 2 x 2 blocks: both must agree wherever the image is exact."""
    mask = np.random.default_rng(1).integers(0, 25, (20, 12)).astype(np.uint8)
    size = {"crop": 12, "pad": 20, "stretch": 20}[fit]
    if fit == "stretch":
        mask = mask.repeat(2, axis=0)[:20]
        mask = np.concatenate([mask, mask[:, :8]], axis=1)
    image, found = both(mask, encoded(mask * 10, orientation=orientation), size, fit)
    inside = found != IGNORED
    assert np.array_equal(image[inside], found[inside] * 10)
    assert (image[~inside] == 0).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(667, 1000), (1000, 667), (301, 640), (640, 641)])
def test_a_jpeg_that_is_decoded_smaller_is_framed_alike(fit: str, shape: tuple[int, int]) -> None:
    """The frame of the image, whose sides are rounded from the reduced size, is the mask's, too."""
    image, mask = both(np.zeros(shape, np.uint8), encoded(np.full(shape, 200, np.uint8), "JPEG"), 64, fit, least=96)
    assert np.array_equal(mask == IGNORED, image < 100)


@pytest.mark.parametrize("fit", FITS)
def test_nearest_is_the_naive_rule(fit: Any) -> None:
    mask = np.random.default_rng(0).integers(0, 200, (37, 53)).astype(np.uint8)
    to = place(37, 53, 16, fit)
    expected = np.full((16, 16), IGNORED, np.uint8)
    for i in range(to.out_height):
        for j in range(to.out_width):
            y = to.top + (i + 0.5) * to.height / to.out_height
            x = to.left + (j + 0.5) * to.width / to.out_width
            expected[to.out_top + i, to.out_left + j] = mask[int(y), int(x)]
    assert np.array_equal(to.mask(mask), expected)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("fit", FITS)
def test_boxes_take_the_same_way(fit: Any, orientation: int) -> None:
    """The box of the pixels of a class, moved, is the box of that class's pixels in the moved mask, to a pixel."""
    mask = np.zeros((80, 120), np.uint8)
    mask[20:44, 36:70] = 1
    image = encoded(mask * 10, orientation=orientation)
    height, width = size = decode(image).pixels.shape[:2]
    upright = turned_boxes([dict(zip("xywh", box_of(mask == 1), strict=True))], orientation, size)
    assert upright[0].tolist() == box_of(read_mask(encoded(mask), image, size) == 1)
    to = place(height, width, 40, fit)
    found = to.boxes(upright, size)[0]
    seen = np.array(box_of(to.mask(read_mask(encoded(mask), image, size)) == 1))
    assert np.abs(found - seen).max() <= 1
    assert np.abs(found[:2] + found[2:] - seen[:2] - seen[2:]).max() <= 1


def test_boxes_outside_the_crop_are_cut_or_left_out() -> None:
    to = place(10, 30, 10, "crop")  # takes columns 10 to 20
    given = np.array([[0, 0, 5, 5], [5, 2, 10, 4], [12, 0, 4, 10]], float)
    assert to.boxes(given, (10, 30)).tolist() == [[0, 2, 5, 4], [2, 0, 4, 10]]
    assert place(10, 30, 10, "pad").boxes(np.array([[0, 0, 30, 10]], float), (10, 30)).tolist() == [[0, 4, 10, 3]]


def test_a_mask_of_the_upright_size_or_with_its_own_orientation_is_not_turned_again() -> None:
    mask = blocks(16, 24)
    image = encoded(mask, orientation=6)  # upright it is 24 high
    assert decode(image).pixels.shape[:2] == (24, 16)
    turned = np.rot90(mask, -1)
    for data in (encoded(mask), encoded(turned), encoded(mask, orientation=6), encoded(turned, orientation=1)):
        assert np.array_equal(read_mask(data, image, (24, 16)), turned)


def test_what_a_mask_may_be() -> None:
    mask = blocks(6, 8, 2)
    image, size = encoded(mask), (6, 8)
    palette = Image.fromarray(mask).convert("P")
    palette.putpalette([value for number in range(256) for value in (255 - number, number // 2, 7)])
    stream, array = io.BytesIO(), io.BytesIO()
    palette.save(stream, "PNG")
    np.save(array, mask.astype(np.int64))
    for data in (encoded(mask), stream.getvalue(), array.getvalue(), encoded(np.repeat(mask[:, :, None], 3, axis=2))):
        assert np.array_equal(read_mask(data, image, size), mask)
    assert read_mask(encoded(mask > 9), image, size).max() == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no image", "unreadable_mask"),
        (encoded(blocks(6, 8))[:45], "unreadable_mask"),
        (encoded(blocks(6, 9)), "mask_size"),
        (encoded(blocks(8, 6)), "mask_size"),
        (encoded(np.full((6, 8), 256, np.uint16)), "mask_classes"),
        (encoded(np.random.default_rng(0).integers(0, 9, (6, 8, 3), dtype=np.uint8)), "mask_classes"),
    ],
)
def test_masks_that_cannot_be_used(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableError) as refused:
        read_mask(data, encoded(blocks(6, 8)), (6, 8))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([2, 2, 0, 3], "no area"),
        ([2, 2, -1, 3], "no area"),
        ([2, 2, float("nan"), 3], "no area"),
        ([-2, 0, 4, 4], "outside the image of 8 x 6"),
        ([5, 0, 5, 4], "outside"),
        ([0, 4, 4, 4], "outside"),
    ],
)
def test_boxes_that_cannot_be_used(box: list[float], said: str) -> None:
    with pytest.raises(UnusableError) as refused:
        check_boxes([dict(zip("xywh", box, strict=True))], encoded(blocks(6, 8)), (6, 8))
    assert (refused.value.reason, said in str(refused.value.detail)) == ("bad_box", True)
    rounded = [{"x": -0.5, "y": 0, "w": 9, "h": 6.4}]
    check_boxes(rounded, encoded(blocks(6, 8)), (6, 8))
    check_boxes([{"x": 0, "y": 0, "w": 6, "h": 8}], encoded(blocks(8, 6), orientation=6), (6, 8))


def test_the_image_is_stored_as_without_targets() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    data = encoded(pixels, "JPEG")
    for fit in FITS:
        images, masks, boxes = transform(
            [data], None, [None], [(40, 61)], {"size": 16, "channels": 3, "depth": "uint8"}, fit, 24
        )
        assert np.array_equal(images[0], stored(decode(data, least=24).pixels, 16, 3, "uint8", fit))  # type: ignore[arg-type]
        assert (masks, boxes) == (None, [None])
