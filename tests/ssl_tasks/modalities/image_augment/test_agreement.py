"""Each operation gives what torchvision's gives for the same parameters: within one grey level, or as floats."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from ssl_tasks.modalities import image_augment
from ssl_tasks.modalities.image_augment import augment, colour, draw, geometry
from ssl_tasks.policy import ResolvedPolicy
from ssl_tasks.randomness import row_keys

NOTHING = {
    "crop_scale": (1.0, 1.0),
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "gray_probability": 0.0,
}
KEYS = row_keys(3, 1, torch.arange(20))
SHAPES = [(24, 24, 3), (31, 17, 3), (17, 33, 1), (29, 13, 4), (40, 21, 2)]
COLOUR_SHAPES = [shape for shape in SHAPES if shape[2] == 3]
JITTER = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
FILL = (0.25,)


def make(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Images with flat and busy parts, and pure colours."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, *shape, generator=generator)
    images[:, : shape[0] // 3] = images[:, :1, :1]
    images[:, -2:] = (images[:, -2:] > 0.5).float()
    return (images * 255).round().to(torch.uint8) if dtype == torch.uint8 else images


@pytest.fixture(params=[torch.uint8, torch.float32], ids=["uint8", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def policy(images: Tensor, **fields: Any) -> ResolvedPolicy:
    """Nothing but what `fields` ask for: the crop is the whole image."""
    height, width = images.shape[1:3]
    whole = {**NOTHING, "crop_ratio": (width / height, width / height)}
    high = 255.0 if images.dtype == torch.uint8 else 1.0
    return ResolvedPolicy(**{**whole, "high": (high,), "fill": FILL, **fields})


def chw(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).contiguous()


def check(images: Tensor, operation: Callable[[int, Tensor], Tensor], levels: int = 1, **fields: Any) -> None:
    """`augment` by a policy of these fields against `operation(row, image)` on each image (C, H, W)."""
    ours = chw(augment(images, policy(images, **fields), KEYS))
    theirs = torch.stack([operation(row, image) for row, image in enumerate(chw(images))])
    assert ours.shape == theirs.shape
    if images.dtype == torch.uint8:
        assert (ours.int() - theirs.int()).abs().max() <= levels
    else:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert not torch.equal(ours, chw(images))  # the operation was not left out


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_asked_nothing_changed(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = make(shape, dtype)
    assert torch.equal(augment(images, policy(images), KEYS), images)
    unchanged = augment(images, policy(images, jitter_probability=1.0, **JITTER), KEYS)
    torch.testing.assert_close(unchanged, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [None, 7, 16, 45, 70])
@pytest.mark.parametrize("shape", [*SHAPES, (50, 61, 3)])
def test_crop_and_resize(shape: tuple[int, ...], size: int | None, dtype: torch.dtype) -> None:
    fields = {"crop_scale": (0.1, 0.9), "crop_ratio": (0.6, 1.6), "size": size}
    images = make(shape, dtype)
    boxes = draw.crops(KEYS, policy(images, **fields), *shape[:2])[:, :4].tolist()
    assert len({tuple(box) for box in boxes}) > 10
    side = [size, size] if size else [*shape[:2]]
    exact = max(shape[0] * shape[1], side[0] * side[1]) > image_augment.SMALL  # then it is the same native code
    check(
        images,
        lambda row, image: reference.resized_crop(image, *boxes[row], side, antialias=True),
        levels=0 if exact else 1,
        **fields,
    )


@pytest.mark.parametrize("size", [(24, 24), (7, 7), (50, 31), (31, 17)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_both_ways_to_crop_agree(channels: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    images = make((31, 17, channels), dtype)
    config = policy(images, crop_scale=(0.1, 1.0), flip_probability=0.5, vertical_flip_probability=0.5)
    boxes, rows = draw.crops(KEYS, config, 31, 17), np.array([3, 11, 4, 19])
    each, together = (crop(images, boxes, size, rows) for crop in (geometry.crop_each, geometry.crop_together))
    assert each.dtype == together.dtype == dtype
    assert (each.float() - together.float()).abs().max() <= (1 if dtype == torch.uint8 else 1e-5)
    assert not torch.equal(each[0], each[1])


def test_crops_are_spread_over_area_and_place() -> None:
    keys = row_keys(0, 0, torch.arange(5000))
    top, left, height, width = draw.boxes(keys, "crop", (0.25, 1.0), (0.75, 4 / 3), 64, 64).unbind(1)
    area = height * width / 64**2
    assert abs(float(area.mean()) - 0.6) < 0.02  # uniform in [0.25, 1] has mean 0.625; cut boxes lower it a little
    for start, side in ((top, height), (left, width)):
        assert int(start.min()) >= 0
        assert int((start + side).max()) == 64


@pytest.mark.parametrize("shape", SHAPES)
def test_flips(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = make(shape, dtype)
    for fields, dims in (
        ({"flip_probability": 1.0}, (2,)),
        ({"vertical_flip_probability": 1.0}, (1,)),
        ({"flip_probability": 1.0, "vertical_flip_probability": 1.0}, (1, 2)),
    ):
        assert torch.equal(augment(images, policy(images, **fields), KEYS), images.flip(dims))


@pytest.mark.parametrize("degrees", [15.0, 180.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_rotation(shape: tuple[int, ...], degrees: float, dtype: torch.dtype) -> None:
    angle = draw.between(KEYS, "rotate", (-degrees, degrees))[:, 0].tolist()
    fill = [FILL[0] * (255 if dtype == torch.uint8 else 1)] * shape[2]
    bilinear = reference.InterpolationMode.BILINEAR

    def operation(row: int, image: Tensor) -> Tensor:
        turned = reference.rotate(image.float(), angle[row], bilinear, fill=fill)
        return turned.round() if dtype == torch.uint8 else turned

    check(make(shape, dtype), operation, rotate_degrees=degrees)


@pytest.mark.parametrize(
    ("name", "strength", "column", "operation"),
    [
        ("brightness", 0.4, 0, reference.adjust_brightness),
        ("brightness", 1.0, 0, reference.adjust_brightness),
        ("contrast", 0.8, 1, reference.adjust_contrast),
        ("saturation", 0.8, 2, reference.adjust_saturation),
        ("hue", 0.1, 3, reference.adjust_hue),
        ("hue", 0.3, 3, reference.adjust_hue),
        ("hue", 0.5, 3, reference.adjust_hue),
    ],
)
@pytest.mark.parametrize("shape", COLOUR_SHAPES)
def test_each_part_of_jitter(
    shape: tuple[int, ...], name: str, strength: float, column: int, operation: Any, dtype: torch.dtype
) -> None:
    strengths = {**JITTER, name: strength}
    *three, hue = strengths.values()
    factors = draw.factors(KEYS, tuple(three), hue)[:, column].tolist()
    check(make(shape, dtype), lambda row, image: operation(image, factors[row]), jitter_probability=1.0, **strengths)


@pytest.mark.parametrize("shape", COLOUR_SHAPES)
def test_jitter_is_brightness_contrast_saturation_hue_in_this_order(shape: tuple[int, ...]) -> None:
    factors = draw.factors(KEYS, (0.6, 0.6, 0.6), 0.2).tolist()

    def operation(row: int, image: Tensor) -> Tensor:
        light, depth, colourfulness, turns = factors[row]
        image = reference.adjust_contrast(reference.adjust_brightness(image, light), depth)
        return reference.adjust_hue(reference.adjust_saturation(image, colourfulness), turns)

    strengths = {"brightness": 0.6, "contrast": 0.6, "saturation": 0.6, "hue": 0.2}
    check(make(shape, torch.float32), operation, jitter_probability=1.0, **strengths)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_brightness_and_contrast_take_any_number_of_channels(channels: int) -> None:
    factors = draw.factors(KEYS, (0.5, 0.5, 0.0), 0.0).tolist()

    def operation(row: int, image: Tensor) -> Tensor:
        brighter = (image * factors[row][0]).clamp(0, 1)
        mean = brighter.mean()
        return (mean + factors[row][1] * (brighter - mean)).clamp(0, 1)

    strengths = {**JITTER, "brightness": 0.5, "contrast": 0.5}
    check(make((17, 33, channels), torch.float32), operation, jitter_probability=1.0, **strengths)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_what_needs_colour_leaves_other_images_alone(channels: int, dtype: torch.dtype) -> None:
    images = make((11, 12, channels), dtype)
    strengths = {**JITTER, "saturation": 0.9, "hue": 0.5}
    view = augment(images, policy(images, **strengths, jitter_probability=1.0, gray_probability=1.0), KEYS)
    torch.testing.assert_close(view, images, rtol=0, atol=1e-6)


def test_hue_is_exact_on_grey_and_primary_colours() -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]], dtype=torch.int16)[:, :, None, None]
    for third, expected in ((1 / 3, [1, 2, 0]), (-1 / 3, [2, 0, 1])):
        turned = colour.shift_hue(colours, torch.full((4, 1), third))[:, :, 0, 0]
        assert turned.tolist() == [*(colours[row, :, 0, 0].tolist() for row in expected), [90, 90, 90]]
    opposite = colour.shift_hue(colours, torch.full((4, 1), 0.5))[:, :, 0, 0]
    assert opposite.tolist() == [[0, 255, 255], [255, 0, 255], [255, 255, 0], [90, 90, 90]]


@pytest.mark.parametrize("shape", COLOUR_SHAPES)
def test_gray(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check(make(shape, dtype), lambda row, image: reference.rgb_to_grayscale(image, 3), gray_probability=1.0)


@pytest.mark.parametrize("sigma", [(0.1, 0.3), (0.5, 1.5), (1.0, 9.0)])
@pytest.mark.parametrize("shape", [*SHAPES, (140, 121, 3)])
def test_blur(shape: tuple[int, ...], sigma: tuple[float, float], dtype: torch.dtype) -> None:
    widths = draw.between(KEYS, "blur", sigma)[:, 0].tolist()
    kernel = [2 * max(1, min(shape[:2]) // 20) + 1] * 2
    check(
        make(shape, dtype),
        lambda row, image: reference.gaussian_blur(image, kernel, [widths[row]] * 2),
        blur_probability=1.0,
        blur_sigma=sigma,
    )


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_solarize(shape: tuple[int, ...], threshold: float, dtype: torch.dtype) -> None:
    at = threshold * (255 if dtype == torch.uint8 else 1)
    check(
        make(shape, dtype),
        lambda row, image: reference.solarize(image, at),
        0,
        solarize_probability=1.0,
        solarize_threshold=threshold,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_equalize(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check(make(shape, dtype), lambda row, image: reference.equalize(image), 0, equalize_probability=1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_cutout(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    boxes = draw.boxes(KEYS, "cutout", (0.02, 0.33), (1 / 3.3, 1 / 0.3), *shape[:2]).tolist()
    value = torch.full((shape[2], 1, 1), FILL[0])
    value = (value * 255).round().to(torch.uint8) if dtype == torch.uint8 else value
    check(make(shape, dtype), lambda row, image: reference.erase(image, *boxes[row], value), 0, cutout_probability=1.0)


def test_the_operations_follow_each_other_in_the_documented_order() -> None:
    images = make((31, 31, 3), torch.float32)
    config = policy(
        images,
        crop_scale=(0.5, 0.9),
        size=24,
        flip_probability=1.0,
        rotate_degrees=30,
        **{**JITTER, "brightness": 0.5},
        jitter_probability=1.0,
        gray_probability=1.0,
        blur_probability=1.0,
        solarize_probability=1.0,
    )
    boxes = draw.crops(KEYS, config, 31, 31)[:, :4].tolist()
    angles = draw.between(KEYS, "rotate", (-30, 30))[:, 0].tolist()
    light = draw.factors(KEYS, (0.5, 0.0, 0.0), 0.0)[:, 0].tolist()
    sigma = draw.between(KEYS, "blur", config.blur_sigma)[:, 0].tolist()
    bilinear = reference.InterpolationMode.BILINEAR

    def operation(row: int, image: Tensor) -> Tensor:
        image = reference.horizontal_flip(reference.resized_crop(image, *boxes[row], [24, 24], antialias=True))
        image = reference.rotate(image, angles[row], bilinear, fill=[FILL[0]] * 3)
        image = reference.rgb_to_grayscale(reference.adjust_brightness(image, light[row]), 3)
        return reference.solarize(reference.gaussian_blur(image, [3, 3], [sigma[row]] * 2), 0.5)

    ours = chw(augment(images, config, KEYS))
    theirs = torch.stack([operation(row, image) for row, image in enumerate(chw(images))])
    near_threshold = (theirs - 0.5).abs() < 1e-4  # there the last bit decides which side of it a pixel falls
    torch.testing.assert_close(ours[~near_threshold], theirs[~near_threshold], rtol=0, atol=2e-5)
    assert near_threshold.float().mean() < 0.01
