"""An encoder from elsewhere as one of ours: its backbone with its weights, and the normalization that it brings.

    backbone, info = open_outside(parse("timm:resnet18@weights.safetensors"), Wanted(), seed=0)

timm says which normalization a model was trained under; of torchvision those networks are read whose modules timm calls
by the same names, with ImageNet's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ssl_tasks.adoption import weights
from ssl_tasks.adoption.reference import KEY, Outside
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import EncoderInfo
from ssl_tasks.errors import RequestError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = re.compile(r"resnet\d+|resnext\d+_\d+x\d+d|wide_resnet\d+_2|densenet\d+")
"""Networks that both libraries build of the same tensors; the tests hold their features against torchvision's."""


@dataclass(frozen=True)
class Wanted:
    """What the user sets in place of what the encoder says of itself."""

    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Described:
    """What is known of an encoder before its weights are read."""

    title: str
    """What tables and the report call it."""
    backbone: str
    """Its name in timm."""
    input_shape: tuple[int, int, int]
    """(C, H, W)."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Per channel, on the scale where black is 0 and white 1."""
    head: tuple[str, ...]
    """Modules of the classifier, which is left out."""
    pool: str = ""
    """How it pools its features, where it says so."""


def open_outside(outside: Outside, wanted: Wanted, seed: int) -> tuple[nn.Module, EncoderInfo]:
    """The backbone in eval mode with its weights, and what `encoder.json` says of it.

    Args:
        seed: of the same architecture's random start.

    Raises:
        RequestError: names `adopt.encoder` and what is wrong with the model, its configuration or its weights.
    """
    told = _adjusted(_described(outside), wanted)
    try:
        backbone = build_backbone(
            told.backbone, modality="image", input_shape=told.input_shape, stem="standard", seed=seed
        )
    except RequestError as error:
        raise RequestError(str(error).replace("pretrain.backbone", KEY)) from error
    _require_pool(told, backbone)
    file = outside.files[-1]
    weights.load(backbone, weights.read(file), told.head, name=told.backbone, file=file)
    return backbone.eval(), _info(told, backbone, seed)


def _described(outside: Outside) -> Described:
    _ = outside.files  # refuses what is not there before anything is asked of its name
    if outside.kind == "folder":
        from ssl_tasks.adoption import huggingface

        return huggingface.describe(outside.path)
    if outside.kind == "torchvision" and not TORCHVISION.fullmatch(outside.model):
        raise RequestError(
            f"{KEY}: of torchvision's networks the ResNets (resnet18, resnext50_32x4d, wide_resnet50_2) and the "
            f"DenseNets are read, and {outside.model} is none; where timm has it, give weights by timm's names"
        )
    told = of_timm(outside.model, title=f"{outside.kind}:{outside.model}")
    return replace(told, mean=IMAGENET_MEAN, std=IMAGENET_STD) if outside.kind == "torchvision" else told


def of_timm(name: str, *, title: str) -> Described:
    """What timm says of a model, by its name with or without the tag of its weights.

    Raises:
        RequestError: timm has no such model, or no such weights of it.
    """
    import timm

    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise RequestError(f"{KEY}: {error}") from error
    if config is None:
        build_backbone(name, modality="image", input_shape=(3, 224, 224), stem="standard")  # refuses an unknown name
        raise RequestError(f"{KEY}: timm does not say how inputs of {name} are normalized")
    head = config.classifier or ()
    return Described(
        title=title,
        backbone=name,
        input_shape=config.input_size,
        mean=tuple(config.mean),
        std=tuple(config.std),
        head=(head,) if isinstance(head, str) else tuple(head),
    )


def _adjusted(told: Described, wanted: Wanted) -> Described:
    channels, height, width = told.input_shape
    if wanted.size:
        height = width = wanted.size
    if height != width:
        raise RequestError(f"{KEY}: {told.title} takes {width} x {height} px, and images are stored as squares")
    mean, std = wanted.mean or told.mean, wanted.std or told.std
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels or (key == "std" and min(values) <= 0):
            raise RequestError(
                f"adopt.{key}: {told.title} takes {channels} channel{'s' * (channels != 1)}, and there are "
                f"{len(values)} values ({', '.join(f'{value:g}' for value in values)}); set one above 0 for each"
            )
    return replace(told, input_shape=(channels, height, width), mean=mean, std=std)


def _require_pool(told: Described, backbone: nn.Module) -> None:
    """timm's networks may be told to pool otherwise, which changes what they give."""
    module = getattr(backbone, "global_pool", None)
    ours = getattr(module, "pool_type", module)
    if told.pool and isinstance(ours, str) and told.pool != ours:
        raise RequestError(f"{KEY}: {told.title} pools its features by {told.pool!r}, and {told.backbone} by {ours!r}")


def _info(told: Described, backbone: nn.Module, seed: int) -> EncoderInfo:
    channels, height, width = told.input_shape
    stats = {
        "modality": "image",
        "shape": [height, width, channels],
        "depth": "uint8",
        "input": "standard",
        "low": [0.0] * channels,
        "high": [255.0] * channels,
        "mean": list(told.mean),
        "std": list(told.std),
    }
    return EncoderInfo(
        method=told.title,
        backbone=told.backbone,
        stem="standard",
        modality="image",
        input_shape=told.input_shape,
        stats=stats,
        num_features=int(backbone.num_features),  # type: ignore[arg-type]  # nn.Module types attributes as tensors
        steps=0,
        precision="fp32",
        seed=seed,
    )
