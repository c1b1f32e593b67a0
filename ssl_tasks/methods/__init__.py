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

if TYPE_CHECKING:
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
    "clip": ("ssl_tasks.methods.clip", 1),
    "siglip": ("ssl_tasks.methods.siglip", 1),
}
"""Module and version by name. The version stands here because the module imports torch, and a cached run needs
the version alone. Raise it when equal inputs no longer give equal weights; versions.lock holds you to it."""

ENTRY_POINTS = "pretextflow.methods"


def names() -> list[str]:
    """All method names, ours and those of other packages."""
    return sorted({*METHODS, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))})


def require(name: str) -> str:
    """`name`, if there is such a method.

    Raises:
        RequestError: there is none of that name.
    """
    if name not in METHODS and name not in names():
        raise RequestError(f"pretrain.method.name: no method {name!r}; there are {', '.join(names())}")
    return name


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


def view_policies(options: dict[str, Any], modality: str) -> tuple[str, ...]:
    """Policies of the views that a method with these options needs, in order; raises as `resolve` does."""
    config = resolve(options, modality)
    return spec(config.name).method.views_for(config).policies


def resolve(options: dict[str, Any], modality: str) -> MethodConfig:
    """The config of a method from its name and options.

    Raises:
        RequestError: an option is unknown or wrong, or the method is not for this modality.
    """
    found = spec(options["name"])
    if modality not in found.modalities:
        raise RequestError(
            f"pretrain.method.name: {found.name} is for {', '.join(found.modalities)}; ingest.modality is {modality}"
        )
    try:
        return found.config.model_validate(options)
    except ValidationError as error:
        raise explain(error, found.config, "pretrain.method") from error
