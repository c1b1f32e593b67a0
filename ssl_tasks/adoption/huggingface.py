"""A folder as the Hugging Face hub has it, of a network that timm knows: `config.json` and weights beside it.

timm's `save_for_hf` and `push_to_hf_hub` write such folders. Those of other libraries say `architectures` in place of
`architecture`, and are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssl_tasks.adoption.outside import Described, of_timm
from ssl_tasks.adoption.reference import CONFIG_FILE, KEY
from ssl_tasks.errors import RequestError

UNDERSTOOD = {"in_chans", "num_classes", "global_pool", "img_size"}
"""Of `model_args`; others would make another network of the same name."""


def describe(folder: Path) -> Described:
    """What the folder says of its encoder.

    Raises:
        RequestError: the configuration cannot be read, or is not of a network that timm builds by its name.
    """
    config = _read(folder / CONFIG_FILE)
    name = config.get("architecture")
    if not isinstance(name, str):
        kind = config.get("architectures") or config.get("model_type") or "no architecture"
        raise RequestError(
            f"{KEY}: {folder / CONFIG_FILE} names {_text(kind)}; folders of timm's networks are read, whose "
            "config.json has the key `architecture`, such as resnet18 or vit_base_patch16_224"
        )
    arguments = _mapping(config, "model_args", folder)
    unknown = sorted(set(arguments) - UNDERSTOOD)
    if unknown:
        raise RequestError(
            f"{KEY}: {folder / CONFIG_FILE} changes the network by model_args ({', '.join(unknown)}); what is read are "
            "networks as timm has them by their names"
        )
    told = of_timm(name, title=f"huggingface:{name}")
    own = _mapping(config, "pretrained_cfg", folder)
    head = own.get("classifier") or told.head
    try:
        channels, height, width = (int(side) for side in own.get("input_size", told.input_shape))
        return Described(
            title=told.title,
            backbone=name,
            input_shape=(channels, height, width),
            mean=tuple(float(value) for value in own.get("mean", told.mean)),
            std=tuple(float(value) for value in own.get("std", told.std)),
            head=(head,) if isinstance(head, str) else tuple(head),
            pool=str(arguments.get("global_pool") or config.get("global_pool") or ""),
        )
    except (TypeError, ValueError) as error:
        raise RequestError(f"{KEY}: {folder / CONFIG_FILE}: pretrained_cfg cannot be understood: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{KEY}: {path} is no JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise RequestError(f"{KEY}: {path} is no configuration: expected names with values")
    return found


def _mapping(config: dict[str, Any], key: str, folder: Path) -> dict[str, Any]:
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise RequestError(f"{KEY}: {folder / CONFIG_FILE}: {key} is no mapping")
    return found


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
