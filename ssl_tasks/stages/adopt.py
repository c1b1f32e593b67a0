"""Adopt: bring an existing encoder in, one of ours or one that was made elsewhere, as pretraining would have left it.

    adopt:
      encoder: timm:resnet18@weights/resnet18.safetensors

Writes `encoder.json`, `encoder.safetensors`, and `initial.safetensors`: the same architecture at random weights, which
the report compares it with.
"""

from __future__ import annotations

import shutil
from typing import Any

from pydantic import Field, field_validator, model_validator

from ssl_tasks.adoption.reference import FORMS, ROLE, Outside, absolute, parse
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config, execution
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.store.references import FINGERPRINT, find, resolve

KEY = "adopt.encoder"
COPIED = ("encoder.json", "encoder.safetensors", "initial.safetensors")


class AdoptConfig(Config):
    """Which encoder, and what of it is not as it says itself."""

    encoder: str = execution("")
    """One of ours by its URI or fingerprint, or one made elsewhere; see `ssl_tasks.adoption.reference`. Not hashed: its
    content is."""
    size: int | None = Field(None, ge=4, le=4096)
    """Pixels a side at which an encoder from elsewhere is used; its own where not set."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Per channel, on the scale where black is 0 and white 1: for weights that were not trained as the model's name
    says."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the random weights that an encoder from elsewhere is compared with."""

    @field_validator("encoder")
    @classmethod
    def _somewhere(cls, value: str) -> str:
        return absolute(value)

    @model_validator(mode="after")
    def _of_outside(self) -> AdoptConfig:
        given = [name for name in ("size", "mean", "std") if getattr(self, name) is not None]
        if given and self.encoder and parse(self.encoder) is None:
            raise ValueError(f"{', '.join(given)}: one of ours brings its own; leave it out")
        return self


def source(config: AdoptConfig) -> str:
    """The fingerprint of one of ours, or the hash of the files of another."""
    outside = parse(config.encoder)
    if outside is not None:
        return outside.content_hash()
    fingerprint = config.encoder.rstrip("/").rpartition("/")[2]
    if not FINGERPRINT.fullmatch(fingerprint):
        raise RequestError(f"{KEY}: {config.encoder or 'nothing'} is no encoder; name {FORMS}")
    return fingerprint


def check(config: AdoptConfig) -> None:
    """Refuse, before any stage runs, files that are no encoder, or weights of another network."""
    outside = parse(config.encoder)
    if outside is not None:
        _opened(outside, config)


def run(config: AdoptConfig, out: Output) -> Artifact:
    """Write the encoder.

    Raises:
        RequestError: there is no such encoder, or its weights are not those of the network that is named.
    """
    outside = parse(config.encoder)
    return _bring_in(outside, config, out) if outside else _hand_on(config.encoder, out)


def info_of(config: AdoptConfig, store: str) -> dict[str, Any]:
    """What `encoder.json` says of one of ours, or will say of another, as far as it needs no weights.

    Args:
        store: URI of the run's store, for a fingerprint without one.
    """
    if parse(config.encoder) is not None:
        return {"modality": "image"}
    info: dict[str, Any] = find(config.encoder, store, key=KEY, stage="pretrain").json("encoder.json")
    return info


def _hand_on(reference: str, out: Output) -> Artifact:
    ours = resolve(reference, out, key=KEY, stage="pretrain", role=ROLE)
    for name in COPIED:
        with out.file(name) as path:
            shutil.copyfile(ours.path(name), path)
    info = ours.json("encoder.json")
    measured = {"origin": "ours", "store": ours.uri, "method": info["method"], "num_features": info["num_features"]}
    # where it was adopted itself
    measured |= {key: value for key, value in ours.measured.items() if key in ("origin", "files")}
    return out.artifact(rows=ours.rows, measured=measured)


def _bring_in(outside: Outside, config: AdoptConfig, out: Output) -> Artifact:
    from ssl_tasks.backbones import build_backbone
    from ssl_tasks.encoder import save_weights

    backbone, info = _opened(outside, config)
    with out.file("encoder.safetensors") as path:
        save_weights(backbone, path)
    like: dict[str, Any] = {"modality": info.modality, "input_shape": info.input_shape, "stem": info.stem}
    with out.file("initial.safetensors") as path:
        save_weights(build_backbone(info.backbone, seed=info.seed, **like), path)
    out.json("encoder.json", info.model_dump(mode="json"))
    measured = {
        "origin": outside.kind,
        "files": [str(file) for file in outside.files],
        "method": info.method,
        "num_features": info.num_features,
    }
    return out.artifact(rows=0, measured=measured)


def _opened(outside: Outside, config: AdoptConfig) -> Any:
    from ssl_tasks.adoption.outside import Wanted, open_outside

    return open_outside(outside, Wanted(config.size, config.mean, config.std), config.seed)


STAGE = Stage("adopt", AdoptConfig, (), run, check=check, source=source)
