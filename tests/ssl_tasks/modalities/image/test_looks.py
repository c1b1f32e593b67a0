"""What is refused and why, keys, measures against naive versions, prints that see through small changes."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from ssl_tasks.modalities.image import looks
from ssl_tasks.modalities.image.checking import check, content_key, examine, kind_of
from ssl_tasks.modalities.image.readers import UnusableError
from ssl_tasks.stages.clean import CleanConfig

RANDOM = np.random.default_rng(1)
CONFIG = CleanConfig(max_pixels=1_000_000, min_side=8, max_aspect=5, min_contrast=0.02)


def picture(seed: int, side: int = 128) -> Image.Image:
    """Smooth shapes with edges, different for every seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (None, "missing", "not there"),
        (b"text", "unreadable", "no image format that is known"),
        (encoded(picture(0).resize((7, 30))), "too_small", "7 x 30"),
        (encoded(picture(0).resize((10, 60))), "extreme_aspect", "10 x 60"),
        (encoded(Image.new("RGB", (20, 20), "grey")), "blank", "values are 128"),
        (encoded(picture(0).resize((1100, 1000))), "too_large", "1100 x 1000"),
    ],
)
def test_what_is_refused_and_why(data: bytes | None, reason: str, said: str) -> None:
    found = examine(data, CONFIG)
    assert isinstance(found, UnusableError)
    assert found.reason == reason
    assert said in found.detail
    assert found.__traceback__ is None  # would keep the pixels alive


def array(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize(
    "values",
    [
        RANDOM.integers(0, 600, (9, 9)).astype(np.uint16),  # 10 bits of 16
        RANDOM.uniform(295, 297, (9, 9)).astype(np.float32),  # degrees Kelvin
    ],
)
def test_deep_images_are_blank_only_where_they_are_constant(values: np.ndarray) -> None:
    assert not isinstance(examine(array(values), CONFIG), UnusableError)
    found = examine(array(np.full_like(values, 296)), CONFIG)
    assert isinstance(found, UnusableError)
    assert (found.reason, found.detail) == ("blank", "all values are 296")


def test_faint_images_of_8_bits_are_blank() -> None:
    values = np.full((9, 9), 100, np.uint8)
    values[3, 3] = 105
    found = examine(array(values), CONFIG)
    assert isinstance(found, UnusableError)
    assert found.detail == "all values lie between 100 and 105, clean.min_contrast is 0.02"


def test_floats_that_are_no_numbers_are_refused() -> None:
    values = RANDOM.normal(size=(9, 9)).astype(np.float32)
    values[2, 3] = np.nan
    stream = io.BytesIO()
    np.save(stream, values)
    found = examine(stream.getvalue(), CONFIG)
    assert isinstance(found, UnusableError)
    assert found.reason == "not_finite"


def test_a_batch_has_a_line_for_each_usable_row() -> None:
    checked = check([encoded(picture(1)), b"text", encoded(picture(2).convert("L"))], CONFIG)
    assert checked.reasons == [None, "unreadable", None]
    assert checked.measures is not None
    assert checked.measures["channels"].to_pylist() == [3, 1]
    assert checked.measures["width"].to_pylist() == [128, 128]
    assert checked.measures["depth"].to_pylist() == ["uint8", "uint8"]
    assert checked.kinds is not None
    assert [kind.name for kind in checked.kinds] == ["3 channels of uint8", "1 channel of uint8"]
    none = check([b"text"], CONFIG)
    assert none.measures is not None
    assert none.measures.num_rows == 0
    assert none.prints is not None
    assert none.prints.shape == (0, looks.PRINT_SIZE)


def test_grey_and_colour_of_8_and_16_bits_are_one_family_and_all_else_is_not() -> None:
    depths = ("uint8", "uint16", "float32")
    families = {(count, depth): kind_of(count, depth).family for count in (1, 2, 3, 4, 5) for depth in depths}
    one = families[3, "uint8"]
    assert {place for place, family in families.items() if family == one} == {
        (1, "uint8"),
        (3, "uint8"),
        (1, "uint16"),
        (3, "uint16"),
    }
    assert len(set(families.values())) == 8


def test_equal_pixels_have_equal_keys_however_they_are_stored() -> None:
    image = picture(3)
    grey = image.convert("L")
    key = content_key(np.asarray(image))
    assert len(key) == 16
    assert key == content_key(np.asarray(Image.open(io.BytesIO(encoded(image, "BMP")))))
    assert content_key(np.asarray(grey)[:, :, None]) == content_key(np.asarray(grey.convert("RGB")))
    turned = np.asarray(image).copy()
    turned[5, 5, 1] ^= 1
    assert key != content_key(turned)
    assert key != content_key(np.asarray(image).reshape(64, 256, 3))


def test_a_grey_picture_with_one_coloured_pixel_is_not_grey() -> None:
    grey = np.repeat(np.asarray(picture(3).convert("L"))[:, :, None], 3, axis=2)
    spot = grey.copy()
    spot[77, 5, 0] ^= 255
    assert content_key(spot) != content_key(grey)


def test_noise_is_estimated_in_its_own_units() -> None:
    clean = np.full((64, 64), 128.0)
    for sigma in (4, 12):
        noisy = (clean + RANDOM.normal(0, sigma, clean.shape)).round().clip(0, 255).astype(np.uint8)
        found = looks.measure(np.zeros((1, 16, 16, 3), np.uint8), [noisy])["noise"][0] * 255
        assert abs(found - sigma) < 0.12 * sigma


def test_measures_agree_with_a_naive_version() -> None:
    image = picture(4, side=40)
    thumb, middle = looks.thumbnail(np.asarray(image)), looks.middle(np.asarray(image))
    found = looks.measure(thumb[None], [middle])
    grey = middle.astype(float) / 255
    laplace, noise = [], []
    for y in range(1, 39):
        for x in range(1, 39):
            window = grey[y - 1 : y + 2, x - 1 : x + 2]
            laplace.append((window * [[0, 1, 0], [1, -4, 1], [0, 1, 0]]).sum())
            noise.append(abs((window * [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]).sum()))
    assert np.isclose(found["sharpness"][0], np.std(laplace), rtol=1e-4)
    assert np.isclose(found["noise"][0], np.sqrt(np.pi / 2) / 6 * np.mean(noise), rtol=1e-4)
    luma = thumb.astype(float) @ [0.299, 0.587, 0.114] / 255
    assert np.isclose(found["brightness"][0], luma.mean(), rtol=1e-4)
    assert np.isclose(found["contrast"][0], luma.std(), rtol=1e-4)


def test_a_batch_of_sizes_is_measured_like_each_alone() -> None:
    parts = [looks.middle(np.asarray(picture(seed, side))) for seed, side in ((1, 100), (2, 20), (3, 20), (4, 2))]
    thumbs = np.zeros((4, 16, 16, 3), np.uint8)
    together = looks.measure(thumbs, parts)
    for place, part in enumerate(parts):
        alone = looks.measure(thumbs[:1], [part])
        assert all(np.isclose(together[name][place], alone[name][0]) for name in looks.MEASURES)


def likeness(first: Image.Image, second: Image.Image) -> float:
    thumbs = np.stack([looks.thumbnail(np.asarray(image)) for image in (first, second)])
    left, right = looks.prints(thumbs).astype(np.float64)
    return float(left @ right)


CHANGES = {
    "jpeg": lambda i: Image.open(io.BytesIO(encoded(i, "JPEG", quality=30))),
    "smaller": lambda i: i.resize((50, 50), Image.Resampling.BICUBIC),
    "darker": lambda i: ImageEnhance.Brightness(i).enhance(0.7),
    "flatter": lambda i: ImageEnhance.Contrast(i).enhance(0.6),
    "blurred": lambda i: i.filter(ImageFilter.GaussianBlur(2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_prints_see_through_what_re_encoding_does(change: str) -> None:
    for seed in range(20):
        assert likeness(picture(seed), CHANGES[change](picture(seed)).convert("RGB")) > 0.93


def test_prints_of_different_pictures_are_unlike() -> None:
    thumbs = np.stack([looks.thumbnail(np.asarray(picture(seed))) for seed in range(60)])
    prints = looks.prints(thumbs).astype(np.float64)
    products = prints @ prints.T - np.eye(60)
    assert products.max() < 0.6


def test_signatures_differ_by_the_angle_between_prints() -> None:
    image = picture(7)
    thumbs = np.stack([looks.thumbnail(np.asarray(i)) for i in (image, CHANGES["jpeg"](image), picture(8))])
    signs = looks.signatures(looks.prints(thumbs))
    assert signs.shape == (3, looks.SIGNATURE_BITS // 8)
    near, far = (int(np.bitwise_count(signs[0] ^ signs[place]).sum()) for place in (1, 2))
    assert near < 30
    assert 90 < far < 166


def test_a_print_of_one_colour_is_nothing() -> None:
    assert not looks.prints(np.full((1, 16, 16, 3), 90, np.uint8)).any()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_deep_pixels_can_be_looked_at(dtype: Any, channels: int) -> None:
    values = (RANDOM.random((20, 30, channels)) * 3000 + 500).astype(dtype)
    shown = looks.visible(values)
    assert shown.dtype == np.uint8
    assert shown.shape == (20, 30, 3 if channels >= 3 else 1)
    assert shown.min() < 5
    assert shown.max() > 250
