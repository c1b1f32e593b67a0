"""Features of adopted encoders are those of the library that made them; anything else is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from tests_adopted import timm_file
from timm.models import save_for_hf
from torch import nn

from ssl_tasks.adoption.outside import Wanted, open_outside
from ssl_tasks.adoption.reference import parse
from ssl_tasks.encoder import Encoder, EncoderInfo
from ssl_tasks.errors import RequestError

PIXELS = torch.randint(0, 256, (3, 160, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def opened(text: str, **wanted: Any) -> tuple[nn.Module, EncoderInfo]:
    found = parse(text)
    assert found is not None
    return open_outside(found, Wanted(**wanted), seed=0)


@torch.no_grad()
def features(text: str, pixels: torch.Tensor = PIXELS, **wanted: Any) -> torch.Tensor:
    """As our stages get them: from stored pixels, through the encoder's own normalization."""
    backbone, info = opened(text, **wanted)
    given: torch.Tensor = Encoder(backbone, info.modality, info.stats).eval()(pixels)
    return given


@torch.no_grad()
def theirs(network: nn.Module, mean: Any, std: Any, pixels: torch.Tensor = PIXELS) -> torch.Tensor:
    """As their users get them: 0..1, standardized, without the classifier."""
    inputs = (pixels.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    network.reset_classifier(0)  # type: ignore[operator]  # of timm's networks
    given: torch.Tensor = network(inputs.permute(0, 3, 1, 2).float())
    return given


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_timm_model_gives_timms_features(tmp_path: Path, name: str, suffix: str) -> None:
    file = tmp_path / f"w.{suffix}"
    network = timm_file(file, name)
    ours = features(f"timm:{name}@{file}")
    assert ours.std() > 0.01
    assert torch.allclose(ours, theirs(network, (0.5,) * 3, (0.5,) * 3), atol=1e-4)


def test_a_checkpoint_that_holds_more_is_read(tmp_path: Path) -> None:
    network = timm_file(tmp_path / "w.pth")
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "checkpoint.tar")
    assert torch.equal(
        features(f"timm:test_resnet@{tmp_path}/checkpoint.tar"), features(f"timm:test_resnet@{tmp_path}/w.pth")
    )


def test_the_tag_says_which_normalization(tmp_path: Path) -> None:
    timm_file(tmp_path / "w.pth", "resnet10t")
    plain = opened(f"timm:resnet10t@{tmp_path}/w.pth")[1].stats
    config = timm.get_pretrained_cfg("resnet10t")
    assert (plain["mean"], plain["std"]) == (list(config.mean), list(config.std))
    given = opened(f"timm:resnet10t@{tmp_path}/w.pth", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), size=64)[1]
    assert (given.stats["mean"], given.stats["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (given.input_shape, given.stats["shape"]) == ((3, 64, 64), [64, 64, 3])


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_a_torchvision_model_gives_torchvisions_features(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    network.train()(torch.randn(2, 3, 64, 64))
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")  # older files lack the counters
    setattr(network, "classifier" if name == "densenet121" else "fc", nn.Identity())
    pixels = PIXELS[:2, :64, :64]
    inputs = (pixels.double() / 255 - torch.tensor([0.485, 0.456, 0.406]).double()) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        expected = network.eval()(inputs.permute(0, 3, 1, 2).float())
    ours = features(f"torchvision:{name}@{tmp_path}/w.pth", pixels, size=64)
    assert expected.std() > 0.01
    assert torch.allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(("name", "channels"), [("test_resnet", 1), ("test_vit", 3)])
def test_a_hugging_face_folder_gives_its_networks_features(
    tmp_path: Path, name: str, channels: int, safe: bool
) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=7).eval()
    told = {"pretrained_cfg": {"mean": [0.3] * channels, "std": [0.2] * channels}}
    save_for_hf(network, str(tmp_path / "hub"), model_config=told, safe_serialization=safe)
    pixels = PIXELS[..., :channels]
    said = json.loads((tmp_path / "hub" / "config.json").read_text())["pretrained_cfg"]
    expected = theirs(network, said["mean"], said["std"], pixels)
    assert torch.allclose(features(str(tmp_path / "hub"), pixels), expected, atol=1e-4)
    assert opened(str(tmp_path / "hub"))[1].input_shape == (channels, 160, 160)


def refusal(text: str, **wanted: Any) -> str:
    with pytest.raises(RequestError) as caught:
        opened(text, **wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    timm_file(tmp_path / "small.safetensors")
    message = refusal(f"timm:resnet18@{tmp_path}/small.safetensors")
    assert message.startswith("adopt.encoder: the weights in ")
    assert "small.safetensors are not those of resnet18: " in message
    assert "missing" in message
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "deep.pth")
    deep = refusal(f"timm:resnet18@{tmp_path}/deep.pth")
    assert "left over" in deep
    assert "missing" not in deep


def test_weights_of_other_shapes_are_refused(tmp_path: Path) -> None:
    timm_file(tmp_path / "grey.pth", in_chans=1)
    assert "conv1.0.weight is 16 x 1 x 3 x 3 and has to be 16 x 3 x 3 x 3" in refusal(
        f"timm:test_resnet@{tmp_path}/grey.pth"
    )
    timm_file(tmp_path / "vit.pth", "test_vit")
    assert "pos_embed is " in refusal(f"timm:test_vit@{tmp_path}/vit.pth", size=64)


def test_a_missing_classifier_is_no_fault_and_a_missing_layer_is(tmp_path: Path) -> None:
    timm_file(tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    save_file({key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "bare.safetensors")
    assert torch.equal(
        features(f"timm:test_resnet@{tmp_path}/bare.safetensors"),
        features(f"timm:test_resnet@{tmp_path}/w.safetensors"),
    )
    state.pop("bn1.running_mean")
    save_file(state, tmp_path / "cut.safetensors")
    assert "1 tensor (bn1.running_mean) missing" in refusal(f"timm:test_resnet@{tmp_path}/cut.safetensors")


class Program:
    """Would run when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("run",)


def test_files_that_are_no_weights_are_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pth").write_text("abc")
    (tmp_path / "text.safetensors").write_text("abc")
    torch.save({"state_dict": Program()}, tmp_path / "program.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    for name in ("text.pth", "text.safetensors", "program.pth", "list.pth"):
        assert f"{name} is no safetensors file and no state dict of torch" in refusal(
            f"timm:test_resnet@{tmp_path}/{name}"
        )
    assert "holds no state dict" in refusal(f"timm:test_resnet@{tmp_path}/numbers.pth")
    assert "run" not in capsys.readouterr().out


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    timm_file(tmp_path / "w.pth")
    assert "did you mean" in refusal(f"timm:test_resnets@{tmp_path}/w.pth")
    assert "Invalid pretrained tag (none)" in refusal(f"timm:resnet18.none@{tmp_path}/w.pth")
    assert "ResNets" in refusal(f"torchvision:vit_b_16@{tmp_path}/w.pth")
    assert "no file of weights" in refusal(f"timm:no_such@{tmp_path}/gone.pth")


def test_statistics_for_other_channels_are_refused(tmp_path: Path) -> None:
    timm_file(tmp_path / "w.pth")
    assert refusal(f"timm:test_resnet@{tmp_path}/w.pth", mean=(0.5,)).startswith(
        "adopt.mean: timm:test_resnet takes 3 "
    )
    assert refusal(f"timm:test_resnet@{tmp_path}/w.pth", std=(0.5, 0.0, 0.5)).startswith("adopt.std: ")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "no JSON"),
        ("[]", "expected names with values"),
        ('{"architectures": ["Dinov2Model"], "model_type": "dinov2"}', "names Dinov2Model; folders of timm's networks"),
        ('{"architecture": "test_resnet", "model_args": {"channels": [8, 8, 8, 8]}}', "model_args (channels)"),
        ('{"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3]}}', "cannot be understood"),
        ('{"architecture": "test_resnet", "global_pool": "max"}', "by 'max', and test_resnet by 'avg'"),
        ('{"architecture": "nothing_of_timm"}', "timm has no model"),
    ],
)
def test_folders_that_are_not_understood_are_refused(tmp_path: Path, config: str, message: str) -> None:
    timm_file(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    assert message in refusal(str(tmp_path))
