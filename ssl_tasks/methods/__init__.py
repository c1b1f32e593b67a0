"""The methods there are. Adding one is one file and one line in `METHODS`.

Packages outside this project list theirs under the entry point group `pretextflow.methods`; each entry
point loads a `MethodSpec`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ssl_tasks.config import explain
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.objectives import KEY, objectives

if TYPE_CHECKING:
    from ssl_tasks.backbones import Pool
    from ssl_tasks.methods.base import MethodConfig, MethodSpec

METHODS = {
    "simclr": ("ssl_tasks.methods.simclr", 1),
    "moco": ("ssl_tasks.methods.moco", 1),
    "instance_discrimination": ("ssl_tasks.methods.instance_discrimination", 1),
    "moco_v3": ("ssl_tasks.methods.moco_v3", 1),
    "cpc": ("ssl_tasks.methods.cpc", 1),
    "byol": ("ssl_tasks.methods.byol", 1),
    "simsiam": ("ssl_tasks.methods.simsiam", 1),
    "barlow_twins": ("ssl_tasks.methods.barlow_twins", 1),
    "vicreg": ("ssl_tasks.methods.vicreg", 1),
    "mae": ("ssl_tasks.methods.mae", 1),
    "simmim": ("ssl_tasks.methods.simmim", 1),
    "ijepa": ("ssl_tasks.methods.ijepa", 1),
    "dino": ("ssl_tasks.methods.dino", 1),
    "ibot": ("ssl_tasks.methods.ibot", 1),
    "swav": ("ssl_tasks.methods.swav", 1),
    "two_encoders": ("ssl_tasks.methods.two_encoders", 1),
    "deepcluster": ("ssl_tasks.methods.deepcluster", 1),
    "rotation": ("ssl_tasks.methods.rotation", 1),
    "jigsaw": ("ssl_tasks.methods.jigsaw", 1),
    "context_prediction": ("ssl_tasks.methods.context_prediction", 1),
    "autoencoder": ("ssl_tasks.methods.autoencoder", 1),
    "sparse_autoencoder": ("ssl_tasks.methods.sparse_autoencoder", 1),
    "contractive": ("ssl_tasks.methods.contractive", 1),
    "contrastive_autoencoder": ("ssl_tasks.methods.contrastive_autoencoder", 1),
    "vae": ("ssl_tasks.methods.vae", 1),
    "aae": ("ssl_tasks.methods.aae", 1),
    "dae": ("ssl_tasks.methods.dae", 1),
    "inpainting": ("ssl_tasks.methods.inpainting", 1),
    "colorization": ("ssl_tasks.methods.colorization", 1),
    "scarf": ("ssl_tasks.methods.scarf", 1),
    "gan": ("ssl_tasks.methods.gan", 1),
    "diffusion": ("ssl_tasks.methods.diffusion", 1),
    "rbm": ("ssl_tasks.methods.rbm", 1),
    "bigan": ("ssl_tasks.methods.bigan", 1),
    "combined": ("ssl_tasks.methods.combined", 1),
    "clip": ("ssl_tasks.methods.clip", 1),
    "siglip": ("ssl_tasks.methods.siglip", 1),
}
"""Module and version by name. The version stands here because the module imports torch, and a cached run needs
the version alone. Raise it when equal inputs no longer give equal weights; versions.lock holds you to it."""

ENTRY_POINTS = "pretextflow.methods"


def names() -> list[str]:
    """All method names, ours and those of other packages."""
    return sorted({*METHODS, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))})


def require(name: str, key: str = "pretrain.method.name") -> str:
    """`name`, if there is such a method.

    Raises:
        RequestError: there is none of that name; names `key`.
    """
    if name not in METHODS and name not in names():
        raise RequestError(f"{key}: no method {name!r}; there are {', '.join(names())}")
    return name


def require_all(options: dict[str, Any]) -> None:
    """Refuse options that name a method which there is none of, themselves or among their objectives.

    Raises:
        RequestError: as `require`, or the objectives are no mapping of methods.
    """
    require(options["name"])
    for name in objectives(options):
        require(name, f"{KEY}.{name}")


@functools.cache
def spec(name: str) -> MethodSpec:
    """The method called `name`; imports it."""
    require(name)
    if name in METHODS:
        loaded: MethodSpec = importlib.import_module(METHODS[name][0]).SPEC
        return loaded
    (point,) = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    found: MethodSpec = point.load()
    return found


def version(name: str) -> int:
    """The method's version."""
    return METHODS[name][1] if name in METHODS else spec(name).version


def versions(options: dict[str, Any]) -> dict[str, int]:
    """Versions of the method with these options, and of those that it combines."""
    return {name: version(name) for name in (options["name"], *objectives(options))}


def view_policies(options: dict[str, Any], modality: str) -> tuple[str, ...]:
    """Policies of the views that a method with these options needs, in order; raises as `resolve` does."""
    config = resolve(options, modality)
    return spec(config.name).method.views_for(config).policies


def pool(options: dict[str, Any], modality: str) -> Pool:
    """What becomes of a ViT's tokens with these options; raises as `resolve` does."""
    config = resolve(options, modality)
    return spec(config.name).method.pool_for(config)


def resolve(options: dict[str, Any], modality: str) -> MethodConfig:
    """The config of a method from its name and options.

    Raises:
        RequestError: an option is unknown or wrong, or the method, or one that it combines, is not for this modality.
    """
    _require_modality(options["name"], modality, "pretrain.method.name")
    parts = objectives(options)
    config = configure(options, "pretrain.method")
    for name, objective in parts.items():
        key = f"{KEY}.{require(name, f'{KEY}.{name}')}"
        _require_modality(name, modality, key)
        configure(objective.options(name), key)
    return config


def _require_modality(name: str, modality: str, key: str) -> None:
    modalities = spec(name).modalities
    if modality not in modalities:
        raise RequestError(f"{key}: {name} is for {', '.join(modalities)}; ingest.modality is {modality}")


def configure(options: dict[str, Any], key: str) -> MethodConfig:
    """The config of a method from its name and options, which stand at `key`.

    Raises:
        RequestError: an option is unknown or wrong.
    """
    config = spec(options["name"]).config
    try:
        return config.model_validate(options)
    except ValidationError as error:
        raise explain(error, config, section=key) from error
