"""The encoder: weights that come back bit for bit, normalization that travels along, misfits refused."""

import json

import pytest
import torch
from pydantic import ValidationError

from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import Encoder, EncoderInfo, check_stats, encode, load_encoder, load_weights, save_weights
from ssl_tasks.errors import RequestError

STATS = {"modality": "image", "shape": [8, 8, 1], "mean": [0.25], "std": [0.5]}
STATS |= {"depth": "uint8", "input": "standard", "low": [0.0], "high": [255.0]}
INFO = {
    "method": "simclr",
    "backbone": "test_resnet",
    "stem": "auto",
    "pool": "average",
    "modality": "image",
    "input_shape": [1, 8, 8],
    "stats": STATS,
    "num_features": 96,
    "steps": 3,
    "precision": "fp32",
    "seed": 4,
}


class Folder:
    """A pretrain artifact as far as `load_encoder` looks."""

    def __init__(self, root):
        self.root = root

    def path(self, name):
        return self.root / name

    def json(self, name):
        return json.loads(self.path(name).read_text())


@pytest.fixture
def pretrained(tmp_path):
    (tmp_path / "encoder.json").write_text(json.dumps(INFO))
    backbone = build_backbone("test_resnet", modality="image", input_shape=(1, 8, 8), seed=4)
    save_weights(backbone, tmp_path / "initial.safetensors")
    backbone.train()(torch.randn(4, 1, 8, 8) + 1)  # batch norm statistics are part of the weights
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.01)
    save_weights(backbone, tmp_path / "encoder.safetensors")
    return Folder(tmp_path), backbone.eval()


def test_features_are_those_of_the_normalized_input(pretrained):
    folder, backbone = pretrained
    payload = torch.randint(0, 256, (5, 8, 8, 1), dtype=torch.uint8)
    encoder = load_encoder(folder)
    normalized = ((payload.double() / 255 - 0.25) / 0.5).permute(0, 3, 1, 2)
    expected = backbone.double()(normalized).detach()
    assert not encoder.training
    assert encoder.num_features == 96
    found = encode(encoder, payload)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_both_weights_come_back_bit_for_bit(pretrained):
    folder, backbone = pretrained
    trained, initial = load_encoder(folder).backbone, load_encoder(folder, "initial").backbone
    fresh = build_backbone("test_resnet", modality="image", input_shape=(1, 8, 8), seed=4)
    for found, expected in ((trained, backbone), (initial, fresh)):
        assert list(found.state_dict()) == list(expected.state_dict())
        assert all(torch.equal(v, expected.state_dict()[k]) for k, v in found.state_dict().items())
    assert not torch.equal(
        trained.fc.weight if hasattr(trained.fc, "weight") else trained.bn1.weight, initial.bn1.weight
    )


def test_equal_weights_are_equal_bytes(pretrained, tmp_path):
    _, backbone = pretrained
    save_weights(backbone, tmp_path / "a")
    save_weights(backbone.to(memory_format=torch.channels_last), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_or_foreign_weights_are_refused(pretrained):
    folder, _ = pretrained
    other = build_backbone("test_resnet", modality="image", input_shape=(3, 8, 8))
    with pytest.raises(RequestError, match=r"encoder\.safetensors: these weights do not fit"):
        load_weights(other, folder.path("encoder.safetensors"))
    folder.path("encoder.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(RequestError, match=r"encoder\.safetensors"):
        load_encoder(folder)


def test_data_that_was_normalized_otherwise_is_refused():
    backbone = build_backbone("mlp:4x1", modality="tabular", input_shape=(2,))
    encoder = Encoder(backbone, "tabular", {"modality": "tabular", "mean": [0.0, 1.0], "shape": [2]})
    check_stats(encoder, {"shape": [2], "modality": "tabular", "mean": [0.0, 1.0]})
    with pytest.raises(RequestError, match=r"\(mean differ\)"):
        check_stats(encoder, {"shape": [2], "modality": "tabular", "mean": [0.0, 1.5]})
    with pytest.raises(RequestError, match=r"\(shape, std differ\)"):
        check_stats(encoder, {"modality": "tabular", "mean": [0.0, 1.0], "std": [1.0, 1.0]})


def test_encoder_json_is_exactly_these_keys():
    assert json.loads(EncoderInfo.model_validate(INFO).model_dump_json()) == INFO
    with pytest.raises(ValidationError):
        EncoderInfo.model_validate(INFO | {"more": 1})
