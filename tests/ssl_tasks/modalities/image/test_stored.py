"""What is stored: channels, depth, fit; its statistics against numpy; what the model sees."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ssl_tasks.errors import RequestError
from ssl_tasks.modalities.image import MODALITY
from ssl_tasks.modalities.image.resize import stored
from ssl_tasks.modalities.image.statistics import fit

RANDOM = np.random.default_rng(2)


def values(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if dtype == np.float32:
        return (RANDOM.normal(size=shape) * 300 - 700).astype(np.float32)
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", ["crop", "pad", "stretch"])
def test_any_depth_and_number_of_channels_is_fitted(dtype: Any, channels: int, kind: Any) -> None:
    pixels = values((30, 20, channels), dtype)
    made = stored(pixels, 10, channels, np.dtype(dtype).name, kind)
    assert made.dtype == dtype
    assert made.shape == (10, 10, channels)
    if kind == "pad":
        assert (made[:, 0] == 0).all()
    for band in range(channels):  # each band as Pillow resizes it in floats
        image = Image.fromarray(pixels[:, :, band].astype(np.float32))
        image = image.crop((0, 5, 20, 25)) if kind == "crop" else image
        fitted = ImageOps.pad if kind == "pad" else Image.Image.resize
        theirs = np.asarray(fitted(image, (10, 10), Image.Resampling.BICUBIC))
        if dtype == np.float32:
            np.testing.assert_allclose(made[:, :, band], theirs, rtol=1e-4, atol=0.05)
        else:
            limit = theirs.clip(0, np.iinfo(dtype).max)
            assert np.abs(made[:, :, band] - limit).max() <= 2  # bytes are rounded after each direction


def test_a_picture_of_the_right_size_is_stored_as_it_is() -> None:
    pixels = values((10, 10, 3), np.uint8)
    assert stored(pixels, 10, 3, "uint8", "crop") is pixels


def test_grey_becomes_colour_and_colour_grey() -> None:
    grey = values((8, 8, 1), np.uint8)
    assert np.array_equal(stored(grey, 8, 3, "uint8", "crop"), np.repeat(grey, 3, 2))
    colour = values((8, 8, 3), np.uint8)
    assert np.array_equal(
        stored(colour, 8, 1, "uint8", "crop")[:, :, 0], np.asarray(Image.fromarray(colour).convert("L"))
    )
    deep = colour.astype(np.uint16) * 257
    from_deep = stored(deep, 8, 1, "uint16", "crop")[:, :, 0] / 257
    assert np.abs(from_deep - stored(colour, 8, 1, "uint8", "crop")[:, :, 0]).max() < 1


def test_depths_are_brought_together_without_loss_of_scale() -> None:
    eight = values((8, 8, 1), np.uint8)
    deep = stored(eight, 8, 1, "uint16", "crop")
    assert int(deep.max()) == int(eight.max()) * 257
    assert np.array_equal(stored(deep, 8, 1, "uint8", "crop"), eight)


@pytest.mark.parametrize(("have", "wanted"), [(4, 3), (2, 1), (3, 5)])
def test_channels_that_cannot_be_brought_together_are_refused(have: int, wanted: int) -> None:
    with pytest.raises(RequestError, match=rf"{have} channels.*{wanted}"):
        stored(values((8, 8, have), np.uint8), 8, wanted, "uint8", "crop")


def test_floats_and_integers_are_not_mixed() -> None:
    with pytest.raises(RequestError, match="float32"):
        stored(values((8, 8, 1), np.float32), 8, 1, "uint8", "crop")


def parts(of: np.ndarray) -> list[np.ndarray]:
    return [of[:1], of[1:7], of[7:]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_statistics_agree_with_numpy(dtype: Any) -> None:
    data = values((20, 9, 9, 2), dtype)
    data[..., 1] = data[..., 1] // 2
    found = fit(iter(parts(data)), None)
    flat = data.reshape(-1, 2).astype(np.float64)
    if dtype == np.float32:
        low, high = flat.min(0), flat.max(0)
        np.testing.assert_allclose(found.low, low, rtol=0.01)
        np.testing.assert_allclose(found.high, high, rtol=0.01)
        low, high = found.low, found.high
    else:
        low, high = np.zeros(2), np.full(2, np.iinfo(dtype).max)
        assert np.array_equal(found.high, high)
    scale = high - low
    tolerance = 1e-12 if dtype != np.float32 else 2e-4  # the outermost bins are clipped to their means
    np.testing.assert_allclose(found.mean, (flat.mean(0) - low) / scale, rtol=tolerance)
    np.testing.assert_allclose(found.std, flat.std(0) / scale, rtol=max(1e-9, tolerance))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_percentiles_and_statistics_between_them(dtype: Any) -> None:
    data = values((40, 9, 9, 1), dtype)
    found = fit(iter(parts(data)), (2.0, 95.0))
    low, high = np.percentile(data.astype(np.float64), [2, 95], method="inverted_cdf")
    rtol = 1e-12 if dtype == np.uint16 else 0.008
    np.testing.assert_allclose([found.low[0], found.high[0]], [low, high], rtol=rtol)
    clipped = (data.astype(np.float64).clip(found.low, found.high) - found.low) / (found.high - found.low)
    np.testing.assert_allclose(found.mean[0], clipped.mean(), rtol=2e-3)
    np.testing.assert_allclose(found.std[0], clipped.std(), rtol=5e-3)


def test_large_means_cost_no_digits() -> None:
    data = (RANDOM.normal(size=(50, 8, 8, 1)) * 0.01 + 1e6).astype(np.float32)
    found = fit(iter(parts(data)), (0.0, 100.0))
    assert found.high[0] - found.low[0] >= 0
    assert np.isfinite(found.std[0])


def test_statistics_do_not_depend_on_the_order() -> None:
    data = values((30, 5, 5, 3), np.float32)
    first, second = fit(iter([data]), (1.0, 99.0)), fit(iter([data[::-1]]), (1.0, 99.0))
    for name in ("low", "high", "mean", "std"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("semantics", ["standard", "unit", "symmetric"])
def test_the_model_sees_what_the_recipe_says(dtype: Any, semantics: str) -> None:
    data = values((40, 6, 6, 2), dtype)
    config = SimpleNamespace(clip_percentiles="auto", input=semantics)
    vocabulary = {"size": 6, "channels": 2, "depth": np.dtype(dtype).name}
    stats = MODALITY.fit(iter(parts(data)), vocabulary, config)
    inputs = MODALITY.to_input(torch.from_numpy(data), stats)
    assert inputs.shape == (40, 2, 6, 6)
    assert inputs.dtype == torch.float32
    if semantics == "standard":
        assert inputs.mean((0, 2, 3)).abs().max() < 2e-3
        assert (inputs.std((0, 2, 3)) - 1).abs().max() < 5e-3
    else:
        least = 0.0 if semantics == "unit" else -1.0
        assert float(inputs.min()) == pytest.approx(least, abs=0.02)
        assert float(inputs.max()) == pytest.approx(1.0, abs=0.02)
        assert float(inputs.min()) >= least - 1e-6
        assert float(inputs.max()) <= 1 + 1e-6


def measures(*kinds: tuple[int, str]) -> Any:
    import pyarrow as pa

    return iter([pa.table({"channels": [count for count, _ in kinds], "depth": [depth for _, depth in kinds]})])


@pytest.mark.parametrize(
    ("kinds", "channels", "expected"),
    [
        ([(1, "uint8"), (1, "uint8")], "auto", (1, "uint8")),
        ([(1, "uint8"), (3, "uint8")], "auto", (3, "uint8")),
        ([(1, "uint16"), (1, "uint8")], "auto", (1, "uint16")),
        ([(1, "uint16")], 3, (3, "uint16")),
        ([(3, "uint8")], 1, (1, "uint8")),
        ([(7, "float32")], "auto", (7, "float32")),
    ],
)
def test_what_is_stored_follows_the_train_rows(kinds: Any, channels: Any, expected: tuple[int, str]) -> None:
    config = SimpleNamespace(size=8, channels=channels)
    found = MODALITY.learn(iter([]), measures(*kinds), config)
    assert (found["channels"], found["depth"]) == expected


def test_a_row_deeper_than_the_train_rows_is_scaled_down() -> None:
    import pyarrow as pa

    from ssl_tasks.sources.tensors import npy_payloads

    deep = np.array([[[0], [257 * 9]], [[257 * 9 + 128], [65535]]], np.uint16)
    config = SimpleNamespace(size=2, channels="auto", fit="crop")
    vocabulary = MODALITY.learn(iter([]), measures((1, "uint8")), config)
    made = MODALITY.transform(pa.table({"payload": npy_payloads(deep[None])}), vocabulary, config)
    assert made.dtype == np.uint8
    assert made.ravel().tolist() == [0, 9, 9, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_model_sees_values_clipped_at_the_percentiles_that_were_fitted(dtype: Any) -> None:
    data = values((40, 6, 6, 2), dtype)
    vocabulary = {"size": 6, "channels": 2, "depth": np.dtype(dtype).name}
    config = SimpleNamespace(clip_percentiles=(10.0, 90.0), input="unit")
    inputs = MODALITY.to_input(torch.from_numpy(data), MODALITY.fit(iter([data]), vocabulary, config))
    assert (float(inputs.min()), float(inputs.max())) == (0.0, 1.0)
    standard = MODALITY.fit(iter([data]), vocabulary, SimpleNamespace(clip_percentiles=(10.0, 90.0), input="standard"))
    seen = MODALITY.to_input(torch.from_numpy(data), standard)
    assert (seen.std((0, 2, 3)) - 1).abs().max() < 5e-3


def test_mixed_numbers_of_channels_are_refused() -> None:
    with pytest.raises(RequestError, match="3 channels and cannot become one of 4"):
        MODALITY.learn(iter([]), measures((3, "uint8"), (4, "uint8")), SimpleNamespace(size=8, channels="auto"))


@pytest.mark.parametrize(("kinds", "wanted"), [([(1, "uint8"), (3, "uint8")], 5), ([(4, "float32")], 3)])
def test_advice_on_channels_that_cannot_be_reached_works(kinds: Any, wanted: int) -> None:
    with pytest.raises(RequestError, match=r"set it to (\d), or leave it out") as refused:
        MODALITY.learn(iter([]), measures(*kinds), SimpleNamespace(size=8, channels=wanted))
    advised = int(str(refused.value).split("set it to ")[1][0])
    for channels in (advised, "auto"):
        assert MODALITY.learn(iter([]), measures(*kinds), SimpleNamespace(size=8, channels=channels))["channels"] > 0
