"""Feature maps of timm's networks: their layout, and that mean and deviation are those of train rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.feature_maps import feature_map, maps, require_map, shrunk


def image_backbone(name: str) -> Any:
    return build_backbone(name, modality="image", input_shape=(3, 32, 32)).eval()


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "swin_tiny_patch4_window7_224"]
)
def test_a_map_follows_its_image(name: str) -> None:
    """Changing the lower right corner changes the map most there, which a wrong layout of tokens would not show."""
    torch.manual_seed(0)
    backbone, images = image_backbone(name), torch.randn(2, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 28:, 28:] += 3.0
    with torch.inference_mode():
        before, after = feature_map(backbone, images), feature_map(backbone, changed)
    assert before.shape[0] == 2
    assert before.shape[2] == before.shape[3] <= 16
    moved = (after - before).abs().sum(dim=(0, 1))
    if moved.numel() > 1:
        assert moved.argmax() == moved.numel() - 1
    if name in ("test_resnet", "swin_tiny_patch4_window7_224"):  # whose features are the map's mean
        with torch.inference_mode():
            assert torch.allclose(before.mean(dim=(2, 3)), backbone(images), atol=1e-4)


def test_a_vits_map_is_its_patch_tokens() -> None:
    backbone, images = image_backbone("test_vit"), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        found, tokens = feature_map(backbone, images), backbone.forward_features(images)
    expected = tokens[:, backbone.num_prefix_tokens :].transpose(1, 2).reshape(found.shape)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp:16x2"])
def test_a_network_without_a_map_is_refused(name: str) -> None:
    backbone = build_backbone(name, modality="tabular", input_shape=(6,))
    with pytest.raises(RequestError, match=r"pretrain.backbone: \w+ has no feature map"):
        require_map(backbone)


def test_channels_have_mean_0_and_deviation_1_over_train_rows() -> None:
    payload = torch.randn(150, 3, 8, 8) * torch.tensor([1.0, 5.0, 0.0])[:, None, None] + 2
    context: Any = SimpleNamespace(
        payload=lambda positions: payload[torch.from_numpy(positions)], to_input=lambda batch: batch
    )
    rows = np.setdiff1d(np.arange(150), [7, 149])
    train = rows[:90]
    found = maps(context, None, rows, train, 150)
    assert (found.shape, found.dtype, type(found)) == ((150, 3, 8, 8), np.float32, np.ndarray)
    assert not found[[7, 149]].any()
    assert np.allclose(found[train].mean(axis=(0, 2, 3)), 0, atol=1e-5)
    assert np.allclose(found[train].std(axis=(0, 2, 3)), [1, 1, 0], atol=1e-4)
    own = payload[train].double()
    scaled = (payload[140].double() - own.mean((0, 2, 3))[:, None, None]) / own.std((0, 2, 3), False)[:, None, None]
    assert np.allclose(found[140, :2], scaled[:2], atol=1e-4)


def test_large_pictures_are_averaged_down() -> None:
    images = torch.randn(2, 3, 128, 32)
    assert torch.allclose(shrunk(images), images.reshape(2, 3, 64, 2, 32).mean(3), atol=1e-6)
    assert torch.equal(shrunk(images[:, :, :64]), images[:, :, :64])
