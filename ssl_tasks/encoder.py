"""The encoder: a backbone with the normalization it was trained under, from a pretrain artifact.

encoder = load_encoder(pretrained)              # or weights="initial", the same network at step 0
features = encoder(torch.from_numpy(shards.take(positions)))    # (B, num_features)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_tasks.artifact import Artifact
from ssl_tasks.backbones import Pool, build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.modalities import modality
from ssl_tasks.modalities.base import Stats

ENCODER_FILE = "encoder.json"


class EncoderInfo(BaseModel):
    """What `encoder.json` says: how to build the backbone, and the normalization that travels along."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: str
    backbone: str
    stem: str
    pool: Pool = "network"
    modality: str
    input_shape: tuple[int, ...]
    stats: dict[str, Any]
    num_features: int
    steps: int
    precision: str
    seed: int

    @property
    def network(self) -> dict[str, Any]:
        """What `build_backbone` is told of the architecture."""
        return {"name": self.backbone, "stem": self.stem, "pool": self.pool}

    @property
    def inputs(self) -> dict[str, Any]:
        """What it is told of the samples."""
        return {"modality": self.modality, "input_shape": self.input_shape}


class Encoder(nn.Module):
    """Stored payload in, features out."""

    def __init__(self, backbone: nn.Module, modality_name: str, stats: Stats) -> None:
        super().__init__()
        self.backbone = backbone
        self.stats = stats
        self.modality = modality(modality_name)

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]  # nn.Module types attributes as tensors

    def forward(self, payload: Tensor) -> Tensor:
        """(B, num_features) features of a payload (B, ...), uint8 or float32 as stored, on the encoder's device."""
        inputs = self.modality.to_input(payload, self.stats)
        features: Tensor = self.backbone(inputs.to(next(self.backbone.parameters()).dtype))
        return features


def save_weights(backbone: nn.Module, path: Path) -> None:
    """Parameters and buffers as safetensors, equal bytes for equal values."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.state_dict().items()}
    save_file(state, path)


def load_encoder(pretrained: Artifact, weights: Literal["encoder", "initial"] = "encoder") -> Encoder:
    """The encoder of a pretrain artifact, in eval mode, on the CPU.

    Args:
        weights: `encoder` for the trained one, `initial` for the same backbone before the first step.

    Raises:
        RequestError: the weights are not those of the backbone that `encoder.json` names.
    """
    info = EncoderInfo.model_validate(pretrained.json(ENCODER_FILE))
    backbone = build_backbone(**info.network, **info.inputs, seed=info.seed)
    encoder = Encoder(backbone, info.modality, info.stats).eval()
    reload(encoder, pretrained, weights)
    return encoder


def reload(encoder: Encoder, pretrained: Artifact, weights: Literal["encoder", "initial"]) -> None:
    """Give the encoder of an artifact others of the weights there, as `load_encoder` calls them, where they lie.

    Raises:
        RequestError: they are not those of its backbone.
    """
    load_weights(encoder.backbone, pretrained.path(f"{weights}.safetensors"))


def ready(encoder: Encoder, device: torch.device) -> Encoder:
    """The encoder on the device, in eval mode, and in the layout in which convolutions on a CPU are fastest."""
    return encoder.to(device).to(memory_format=torch.channels_last).eval()


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Load what `save_weights` wrote, name by name.

    Raises:
        RequestError: the file is damaged, or of another network.
    """
    try:
        backbone.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise RequestError(f"{path}: these weights do not fit the backbone: {error}") from error


def check_stats(encoder: Encoder, stats: Stats) -> None:
    """Refuse data that was normalized otherwise than the encoder's.

    Raises:
        RequestError: names the keys of the statistics that differ.
    """
    if differing := differing_keys(encoder.stats, stats):
        raise RequestError(
            f"the data was normalized otherwise than what the encoder was trained on ({', '.join(differing)} differ); "
            "normalize it with the encoder's own statistics"
        )


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Of the statistics of two normalizations."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


@torch.no_grad()
def encode(encoder: Encoder, payload: Tensor) -> Tensor:
    """(B, num_features) float32 features on the CPU, of a payload that may be anywhere."""
    device = next(encoder.parameters()).device
    return encoder(payload.to(device)).float().cpu()  # type: ignore[no-any-return]  # nn.Module.__call__ is Any
