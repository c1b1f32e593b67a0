"""The preview shows samples and views of every policy, readable for every size, dtype and number of channels."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_tasks.modalities.image_augment import preview
from ssl_tasks.modalities.image_augment.preview import CELL, PAPER, sheet
from ssl_tasks.stages.augment import AugmentConfig, resolve

TOPS = {np.uint8: 255, np.uint16: 65535, np.float32: 1}
LINES = 3


def drawn(shape: tuple[int, ...], dtype: Any, policies: dict[str, Any]) -> tuple[Image.Image, np.ndarray]:
    top = TOPS[dtype]
    payload = (np.random.default_rng(0).random((LINES, *shape)) * top).astype(dtype)
    stats = {"shape": list(shape), "mean": [0.5] * shape[2], "low": [0.0] * shape[2], "high": [float(top)] * shape[2]}
    views = resolve(AugmentConfig.model_validate({"policies": policies}), stats, np.dtype(dtype))
    image = sheet(torch.from_numpy(payload), torch.arange(LINES), views)
    return image, np.round(payload.astype(np.float64) / top * 255)


@pytest.mark.parametrize("dtype", list(TOPS))
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(8, 8), (32, 20), (112, 112), (224, 224)])
def test_the_first_column_is_the_samples(shape: tuple[int, int], channels: int, dtype: Any) -> None:
    image, levels = drawn((*shape, channels), dtype, {})
    assert image.mode == "RGB"
    page = np.asarray(image).astype(int)
    shown = levels[..., :3] if channels >= 3 else levels[..., :1].repeat(3, axis=3)
    factor = CELL / max(shape)
    line = shape[0] * int(factor) if factor >= 1 else CELL
    first = image.height - LINES * (line + preview.GAP)
    if factor >= 1:  # each pixel is a square of its own
        step = int(factor)
        corner = page[first : first + shape[0] * step : step, preview.GAP : preview.GAP + shape[1] * step : step]
        assert abs(corner - shown[0]).max() <= 1
    else:
        cell = page[first : first + CELL, preview.GAP : preview.GAP + CELL]
        assert abs(cell.mean((0, 1)) - shown[0].mean((0, 1))).max() < 2


def test_every_policy_has_its_columns_at_its_relative_size() -> None:
    image, _ = drawn((28, 28, 3), np.uint8, {"second": {"flip_probability": 1.0}, "wide": {"size": 56}})
    page = np.asarray(image)
    line = page[-preview.GAP - CELL + 1]  # through the top of the last line's largest pictures
    ink = (line != PAPER).any(1).astype(int)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], ink])) == 1)
    ends = np.flatnonzero(np.diff(np.concatenate([ink, [0]])) == -1)
    assert (ends - starts + 1).tolist() == [56] * 4 + [28] * 2 + [56] * 2 + [112] * 2


def test_a_long_name_has_room_and_seeds_give_other_views() -> None:
    payload = torch.randint(0, 256, (2, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def page(seed: int, name: str) -> Tensor:
        config = AugmentConfig.model_validate({"policies": {name: {"size": 4}}, "seed": seed})
        views = resolve(config, {"shape": [8, 8, 1], "mean": [0.5]}, np.dtype(np.uint8))
        return torch.from_numpy(np.asarray(sheet(payload, torch.arange(2), views)).copy())

    short, long = page(0, "a"), page(0, "a_policy_with_a_rather_long_name_indeed")
    assert long.shape[1] > short.shape[1]
    assert torch.equal(page(0, "a"), short)
    assert not torch.equal(page(1, "a"), short)
