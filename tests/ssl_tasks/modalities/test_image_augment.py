"""Each operation agrees with torchvision's for the same parameters."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from ssl_tasks.modalities import image_augment
from ssl_tasks.modalities.image_augment import augment, crop_boxes
from ssl_tasks.randomness import row_keys, uniform
from ssl_tasks.stages.augment import AugmentConfig

NOTHING = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "gray_probability": 0.0,
}
KEYS = row_keys(3, 1, torch.arange(16))


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (16, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def chw(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def hwc(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def close(ours: Tensor, theirs: Tensor, levels: int = 1) -> None:
    assert (ours.int() - theirs.int()).abs().max() <= levels


def test_nothing_asked_nothing_changed(images: Tensor) -> None:
    assert torch.equal(augment(images, AugmentConfig(**NOTHING), KEYS), images)


def test_crop_and_resize(images: Tensor) -> None:
    config = AugmentConfig(**{**NOTHING, "crop_scale": (0.2, 0.9), "crop_ratio": (0.75, 1.33)})
    boxes = torch.stack(crop_boxes(KEYS, config, 24, 24), 1).int().tolist()
    theirs = [
        reference.resized_crop(image, *box, [24, 24], antialias=False)
        for image, box in zip(chw(images), boxes, strict=True)
    ]
    close(augment(images, config, KEYS), hwc(torch.stack(theirs)))
    assert len({tuple(box) for box in boxes}) > 10


def test_crops_are_spread_over_area_and_place() -> None:
    config = AugmentConfig(crop_scale=(0.25, 1.0), crop_ratio=(0.75, 4 / 3))
    keys = row_keys(0, 0, torch.arange(5000))
    top, left, height, width = crop_boxes(keys, config, 64, 64)
    area = height * width / 64**2
    assert abs(float(area.mean()) - 0.6) < 0.02  # uniform in [0.25, 1] has mean 0.625; cut boxes lower it a little
    for start, side in ((top, height), (left, width)):
        assert int(start.min()) >= 0
        assert int((start + side).max()) <= 64


def test_flip(images: Tensor) -> None:
    flipped = augment(images, AugmentConfig(**{**NOTHING, "flip_probability": 1.0}), KEYS)
    assert torch.equal(flipped, images.flip(2))


def test_gray(images: Tensor) -> None:
    grey = augment(images, AugmentConfig(**{**NOTHING, "gray_probability": 1.0}), KEYS)
    close(grey, hwc(reference.rgb_to_grayscale(chw(images), 3)))


@pytest.mark.parametrize(
    ("name", "index", "operation"),
    [
        ("brightness", 0, reference.adjust_brightness),
        ("contrast", 1, reference.adjust_contrast),
        ("saturation", 2, reference.adjust_saturation),
    ],
)
def test_jitter(images: Tensor, name: str, index: int, operation: object) -> None:
    strengths = {**dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0), name: 0.4}
    config = AugmentConfig(**{**NOTHING, **strengths, "jitter_probability": 1.0})
    factor = 1 + 0.4 * (2 * uniform(KEYS, "jitter", 4)[:, index] - 1)
    theirs = [operation(image, float(f)) for image, f in zip(chw(images), factor, strict=True)]
    close(augment(images, config, KEYS), hwc(torch.stack(theirs)), levels=2)


def test_hue(images: Tensor) -> None:
    config = AugmentConfig(
        **{**NOTHING, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.1, "jitter_probability": 1.0}
    )
    shift = 0.1 * (2 * uniform(KEYS, "jitter", 4)[:, 3] - 1)
    theirs = [reference.adjust_hue(image, float(s)) for image, s in zip(chw(images).float() / 255, shift, strict=True)]
    close(augment(images, config, KEYS), hwc(torch.stack(theirs) * 255).round(), levels=1)


def test_blur(images: Tensor) -> None:
    config = AugmentConfig(**{**NOTHING, "blur_probability": 1.0, "blur_sigma": (0.5, 1.5)})
    sigma = 0.5 + uniform(KEYS, "blur", 1)[:, 0]
    theirs = [
        reference.gaussian_blur(image, [3, 3], [float(s)] * 2) for image, s in zip(chw(images), sigma, strict=True)
    ]
    close(augment(images, config, KEYS), hwc(torch.stack(theirs)))


def test_rotation(images: Tensor) -> None:
    config = AugmentConfig(**{**NOTHING, "rotate_degrees": 30})
    angle = (2 * uniform(KEYS, "rotate", 1)[:, 0] - 1) * 30
    theirs = [
        reference.rotate(image.float(), float(a), reference.InterpolationMode.BILINEAR)
        for image, a in zip(chw(images), angle, strict=True)
    ]
    inner = slice(7, 17)  # corners differ: torchvision fills what comes from outside, we repeat the border
    assert math.hypot(5, 5) < 12
    close(augment(images, config, KEYS)[:, inner, inner], hwc(torch.stack(theirs).round())[:, inner, inner])


def test_hue_is_exact_on_grey_and_primary_colours() -> None:
    colours = torch.tensor([[255.0, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]])[:, :, None, None]
    third = torch.full((4, 1, 1), 1 / 3)
    turned = image_augment._shift_hue(colours, third)[:, :, 0, 0].round()
    assert turned.tolist() == [[0, 255, 0], [0, 0, 255], [255, 0, 0], [90, 90, 90]]


def test_one_channel_images_pass_through_all_operations() -> None:
    config = AugmentConfig(blur_probability=1.0, rotate_degrees=10)
    grey = torch.randint(0, 256, (16, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert augment(grey, config, KEYS).shape == grey.shape


def test_config_is_any_object_with_the_fields(images: Tensor) -> None:
    config = AugmentConfig()
    same = SimpleNamespace(**config.model_dump())
    assert torch.equal(augment(images, config, KEYS), augment(images, same, KEYS))
