"""A view depends on its key and its image: not on the rest of the batch, on chunks, on threads, on how it is stored."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_tasks.modalities import image_augment
from ssl_tasks.modalities.image_augment import augment
from ssl_tasks.policy import ResolvedPolicy
from ssl_tasks.randomness import mix, row_keys

SOME = dict.fromkeys(
    ("vertical_flip", "gray", "blur", "solarize", "equalize", "noise", "cutout", "mask", "jitter"),
    0.5,
)
EVERYTHING: dict[str, Any] = {
    **{f"{name}_probability": probability for name, probability in SOME.items()},
    "rotate_degrees": 20.0,
    "hue": 0.5,
    "mask_patch": 4,
}
TOPS = {torch.uint8: 255, torch.uint16: 65535, torch.float32: 1}
KEYS = row_keys(0, 7, torch.arange(40))


def make(dtype: torch.dtype, channels: int = 3) -> Tensor:
    images = torch.rand(40, 23, 19, channels, generator=torch.Generator().manual_seed(0))
    if dtype == torch.float32:
        return images
    return (images * TOPS[dtype]).to(torch.int32).to(dtype)


def take(images: Tensor, rows: list[int]) -> Tensor:
    return torch.from_numpy(images.numpy()[rows])  # torch cannot index uint16


def policy(dtype: torch.dtype, **fields: Any) -> ResolvedPolicy:
    return ResolvedPolicy(**{**EVERYTHING, "high": (float(TOPS[dtype]),), **fields})


@pytest.fixture(params=list(TOPS), ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.mark.parametrize("size", [None, 10])
@pytest.mark.parametrize("kind", ["random", "block"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_view_is_its_own_key_s_alone(channels: int, kind: str, size: int | None, dtype: torch.dtype) -> None:
    images, config = make(dtype, channels), policy(dtype, mask_kind=kind, size=size)
    whole = augment(images, config, KEYS)
    assert whole.shape == (40, size or 23, size or 19, channels)
    assert whole.dtype == dtype
    assert torch.isfinite(whole.float()).all()
    for rows in ([31, 4, 4, 17], [9]):
        assert torch.equal(take(whole, rows), augment(take(images, rows), config, KEYS[rows]))
    assert torch.equal(whole, augment(images, config, KEYS))
    assert not torch.equal(whole, augment(images, config, mix(KEYS)))


def test_views_do_not_depend_on_chunks_and_threads(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    images, config = make(dtype), policy(dtype, size=64)
    whole = augment(images, config, KEYS)
    for values, threads in ((1, 1), (5 * 64 * 64 * 3, 2), (10**9, 2)):
        monkeypatch.setattr(image_augment, "CHUNK_VALUES", values)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert torch.equal(whole, augment(images, config, KEYS))
        finally:
            torch.set_num_threads(before)


def test_large_grey_images_give_the_same_bits_alone_and_on_two_threads() -> None:
    images = torch.rand(3, 256, 256, 1, generator=torch.Generator().manual_seed(1))
    config = policy(torch.float32, equalize_probability=0.0, jitter_probability=1.0)
    whole = augment(images, config, KEYS[:3])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(whole[1:2], augment(images[1:2], config, KEYS[1:2]))
    finally:
        torch.set_num_threads(before)


def test_the_payload_is_not_changed(dtype: torch.dtype) -> None:
    images = make(dtype)
    before = images.clone()
    augment(images, policy(dtype), KEYS)
    assert torch.equal(images, before)


def test_each_operation_is_drawn_as_often_as_asked() -> None:
    images = torch.full((4000, 4, 4, 3), 200, dtype=torch.uint8)
    keys = row_keys(0, 0, torch.arange(4000))
    off = {"jitter_probability": 0.0, "gray_probability": 0.0}
    for name, probability in (("solarize", 0.3), ("noise", 0.05), ("mask", 0.8)):
        fields = {**off, f"{name}_probability": probability, "mask_patch": 2}
        changed = (augment(images, ResolvedPolicy(**fields), keys) != 200).flatten(1).any(1).float().mean()
        assert abs(float(changed) - probability) < 0.025  # three standard deviations of 4000 draws


@pytest.mark.parametrize("stored", [torch.uint16, torch.float32])
def test_stored_scales_give_the_same_picture(stored: torch.dtype) -> None:
    """What stands between `low` and `high` is seen as floats from 0 to 1 would be."""
    fields = {"equalize_probability": 0.0, "fill": (0.3, 0.4, 0.5)}
    images = make(torch.float32)
    low, high = torch.tensor([100.0, 200.0, 50.0]), torch.tensor([30000.0, 60000.0, 9000.0])
    scaled = images * (high - low) + low
    config = policy(torch.float32, **fields, low=low.tolist(), high=high.tolist())
    views = augment(scaled.to(torch.int32).to(stored) if stored == torch.uint16 else scaled, config, KEYS)
    plain = augment(images, policy(torch.float32, **fields, solarize_threshold=0.5), KEYS)
    seen = (views.float() - low) / (high - low)
    wrong = (seen - plain).abs() > (1e-4 if stored == torch.float32 else 1e-3)
    assert wrong.float().mean() < 1e-3  # only where a value stands at the threshold of solarize


def test_the_fill_of_uint8_images_is_the_stored_mean() -> None:
    """Where normalize was told to clip percentiles, the mean is on the scale between them."""
    images = torch.zeros(1, 8, 8, 1, dtype=torch.uint8)
    off = {"jitter_probability": 0.0, "mask_probability": 1.0, "mask_ratio": 1.0, "mask_patch": 2}
    config = ResolvedPolicy(**off, low=(20.0,), high=(120.0,), fill=(0.4,))
    assert (augment(images, config, KEYS[:1]) == 60).all()


def test_values_beyond_the_fitted_range_are_cut_off_before_an_operation() -> None:
    images = torch.full((1, 8, 8, 1), 5.0)
    off = {"jitter_probability": 0.0, "crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "high": (2.0,)}
    assert (augment(images, ResolvedPolicy(**off), KEYS[:1]) == 5).all()
    assert (augment(images, ResolvedPolicy(**off, solarize_probability=1.0), KEYS[:1]) == 0).all()
