"""Whether method, backbone, batch, views, strategies and encoders go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.recipe import Recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import STATS_FILE, TRAIN
from ssl_tasks.stages.pretrain import check_rows
from ssl_tasks.training.config import PretrainConfig

ASSUMED_COLUMNS = 1_000
"""Of tables that nobody has read yet: so many that only what no table allows is refused."""


def require_rows(recipe: Recipe, split: Artifact) -> None:
    """Refuse a batch that is larger than the train rows, as there are no short ones, and options that need more."""
    batch_size = getattr(getattr(recipe, "pretrain", None), "batch_size", 0)
    num_train = split.measured["splits"][TRAIN]
    if batch_size > num_train:
        raise RequestError(
            f"pretrain.batch_size: {batch_size} is larger than the {num_train} train rows that are left; "
            f"set pretrain.batch_size={max(1, num_train)} or less, or give more data"
        )
    pretrain = getattr(recipe, "pretrain", None)
    if isinstance(pretrain, PretrainConfig):
        check_rows(pretrain, num_train)


def require_used_policies(recipe: Recipe) -> None:
    """Refuse named policies that the method asks for nowhere: they would change nothing."""
    from ssl_tasks import methods

    given = getattr(getattr(recipe, "augment", None), "policies", {})
    if not given:
        return
    pretrain: Any = getattr(recipe, "pretrain", None)
    name = pretrain.method.name
    used = dict.fromkeys(methods.view_policies(pretrain.method.options(), pretrain.modality))  # imports torch
    unused = [policy for policy in given if policy not in used]
    if unused:
        raise RequestError(
            f"augment.policies: {name} uses no policy called {' or '.join(map(repr, unused))}; its views are drawn by "
            f"{', '.join(used)}. Leave {'it' if len(unused) == 1 else 'them'} out, or choose a method that asks for it"
        )


def require_fitting_method(recipe: Recipe, normalized: Artifact | None = None) -> None:
    """Refuse a method, backbone, batch and views that do not go together, or not with inputs of the recipe's size.

    Before the data is `normalized`, three channels are assumed where they are the data's to say, and of tables
    `ASSUMED_COLUMNS`.
    """
    pretrain, augment, normalize = (getattr(recipe, name, None) for name in ("pretrain", "augment", "normalize"))
    if pretrain is None or augment is None or normalize is None:
        return
    import numpy as np

    from ssl_tasks import methods
    from ssl_tasks.stages.augment import resolve
    from ssl_tasks.training.setup import rehearse

    shape = _assumed_shape(normalize)
    if normalized is not None:
        if normalized.measured["shape"] == shape:
            return
        shape = normalized.measured["shape"]
    views = resolve(augment, {"shape": shape, "mean": [0.5] * shape[-1]}, np.dtype(np.uint8))
    names = methods.view_policies(pretrain.method.options(), pretrain.modality)
    rehearse(pretrain, (shape[-1], *shape[:-1]), names, views, normalize.largest_text())


def _assumed_shape(normalize: Any) -> list[int]:
    """(H, W, C) or (D,), as `normalize` measures it."""
    if normalize.modality != "image":
        return [ASSUMED_COLUMNS]
    channels = normalize.channels if isinstance(normalize.channels, int) else 3
    return [normalize.size, normalize.size, channels]


def require_fitting_strategies(recipe: Recipe, normalized: Artifact | None = None) -> None:
    """Refuse strategies and options that do not go with the backbone.

    Before the data is `normalized` only images are judged, of three channels where these are the data's to say.
    """
    pretrain, normalize, transfer = (getattr(recipe, name, None) for name in ("pretrain", "normalize", "transfer"))
    if pretrain is None or normalize is None or transfer is None:
        return
    from ssl_tasks.transfer import checks

    if not checks.needed(transfer.strategies) or (normalized is None and pretrain.modality != "image"):
        return
    from ssl_tasks import methods

    shape = _assumed_shape(normalize) if normalized is None else normalized.measured["shape"]
    like: dict[str, Any] = {"modality": pretrain.modality, "input_shape": (shape[-1], *shape[:-1])}
    pool = methods.pool(pretrain.method.options(), pretrain.modality)
    _check_strategies(recipe, {"name": pretrain.backbone, "stem": pretrain.stem, "pool": pool}, like)


def _check_strategies(recipe: Recipe, network: Mapping[str, Any], like: Mapping[str, Any]) -> None:
    """Args: network: what `build_backbone` is told of the encoder; like: what it is told of its inputs but views."""
    from ssl_tasks.backbones import build_backbone
    from ssl_tasks.transfer import checks, further
    from ssl_tasks.transfer.base import Blueprint
    from ssl_tasks.transfer.networks.students import build_student

    transfer: Any = getattr(recipe, "transfer", None)
    size = getattr(getattr(recipe, "augment", None), "size", None)
    sides = {"augment.size": size} if size else {}
    backbone = build_backbone(**network, **like, view_sides=sides)
    student = build_student(transfer, **like, view_sides=sides) if transfer.distill.student else None
    others = {one.name: one.build(sides) for one in further.read(transfer.encoders, recipe.store)}
    checks.check(transfer.strategies, Blueprint(backbone, transfer, student, others))


def require_fitting_encoders(recipe: Recipe, normalized: Artifact | None = None) -> None:
    """Refuse further encoders that are not there, or of data that was `normalized` otherwise."""
    references = getattr(getattr(recipe, "transfer", None), "encoders", ())
    if not references:
        return
    from ssl_tasks.transfer import further

    found = further.read(references, recipe.store)
    if normalized is not None:
        further.check(found, normalized.json(STATS_FILE))


def require_fitting_encoder(recipe: Recipe) -> None:
    """Refuse an encoder of another modality than the data's."""
    from ssl_tasks.stages.adopt import info_of

    adopt, ingest = getattr(recipe, "adopt", None), getattr(recipe, "ingest", None)
    if adopt is None or ingest is None:
        return
    theirs = info_of(adopt, recipe.store)["modality"]
    if theirs != ingest.modality:
        raise RequestError(
            f"adopt.encoder: it takes samples of modality {theirs}, and ingest.modality is {ingest.modality}; "
            f"give it {theirs} data, or another encoder"
        )


def require_strategies_of_encoder(recipe: Recipe, adopted: Artifact) -> None:
    """As `require_fitting_strategies`, of an encoder that is there already."""
    from ssl_tasks.transfer import checks

    transfer: Any = getattr(recipe, "transfer", None)
    if transfer is None or not checks.needed(transfer.strategies):
        return
    from ssl_tasks.encoder import ENCODER_FILE, EncoderInfo  # torch costs seconds

    info = EncoderInfo.model_validate(adopted.json(ENCODER_FILE))
    _check_strategies(recipe, info.network, info.inputs)
