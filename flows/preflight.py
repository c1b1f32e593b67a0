"""Checks across sections, made as soon as what they need is known and before anything expensive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.recipe import Recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.cluster.connect import require_answer
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import DOMAIN, LABEL, ROWS_FILE, SPLIT, SPLITS_FILE, STATS_FILE, TEST, TRAIN
from ssl_tasks.stages.pretrain import check_rows
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.transfer import data, dense_targets, domains
from ssl_tasks.transfer.targets import (
    CLASSIFICATION,
    DENSE,
    LOCALIZATION,
    MULTI_LABEL,
    REGRESSION,
    SEGMENTATION,
    WITHOUT,
)

if TYPE_CHECKING:
    from flows.plan import Planned
    from ssl_tasks.transfer.options import DomainsConfig

ASSUMED_COLUMNS = 1_000
"""Of tables that nobody has read yet: so many that only what no table allows is refused."""
ADDRESS_FILE = Path("/tmp/ray/ray_current_cluster")


NEEDS = {
    MULTI_LABEL: ("multi_labelled", "lists of labels", "name their column with ingest.labels_column or class_columns"),
    REGRESSION: ("numbered", "numbers", "name their column with ingest.number_column"),
    SEGMENTATION: ("masks", "masks", "set ingest.masks=true if it has"),
    LOCALIZATION: ("boxes", "boxes", "set ingest.boxes=true if it has"),
}
"""By `transfer.task`, what `ingest` counts its targets as, what they are, and what to do where there are none."""


def require_labels(recipe: Recipe, ingested: Artifact) -> None:
    """Refuse transfer strategies for data without labels, or without what else they are to predict."""
    transfer = getattr(recipe, "transfer", None)
    strategies, task = getattr(transfer, "strategies", []), _task(recipe)
    counts = ingested.measured
    if not strategies:
        return
    if task in NEEDS:
        key, what, advice = NEEDS[task]
        if not counts.get(key) and not (task == REGRESSION and counts.get("labelled")):  # labels may be numbers
            raise RequestError(
                f"transfer.task: {task} needs {what}, and the data at ingest.path has none; {advice}, {WITHOUT}"
            )
    elif not counts.get("labelled"):
        for other, (key, *_) in NEEDS.items():
            if counts.get(key):
                raise RequestError(
                    f"transfer.task: {task} needs one label a row, and the data has what {other} predicts; set "
                    f"transfer.task={other}, or name a label column, {WITHOUT}"
                )
        raise RequestError(
            f"transfer.strategies: {', '.join(strategies)} need labels, and the data at ingest.path has no labels. "
            f"Put images into one folder per class or name a label column, {WITHOUT}"
        )


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


def require_test_labels(recipe: Recipe, split: Artifact) -> None:
    """Refuse transfer strategies where nothing could be measured at the end."""
    strategies = getattr(getattr(recipe, "transfer", None), "strategies", [])
    counted = _task(recipe) not in NEEDS  # of other targets the split artifact has no counts
    if strategies and counted and split.measured.get("labelled", {}).get(TEST) == 0:
        raise RequestError(
            f"transfer.strategies: {', '.join(strategies)} need test rows with labels, and there are none; raise the "
            f"test share of split.fractions, or where the data names the splits set split.use_given=false, {WITHOUT}"
        )


def require_usable_labels(recipe: Recipe, split: Artifact) -> None:
    """Refuse labels or label budgets that transfer would refuse at the end; see `require_domain_rows` for domains."""
    transfer = getattr(recipe, "transfer", None)
    if getattr(transfer, "strategies", []) and not _domains(recipe):
        data.check(split, getattr(transfer, "labels_per_class", ()), _task(recipe))


def require_stored_targets(recipe: Recipe, normalized: Artifact) -> None:
    """Refuse masks or boxes that transfer would refuse at the end."""
    if getattr(getattr(recipe, "transfer", None), "strategies", []) and _task(recipe) in DENSE:
        dense_targets.check_stored(normalized, _task(recipe))


def require_targets(recipe: Recipe, split: Artifact) -> None:
    """Refuse strategies that learn several kinds of targets at once for rows that have one."""
    from ssl_tasks.transfer import any_joint, joint

    transfer = getattr(recipe, "transfer", None)
    if any_joint(getattr(transfer, "strategies", ())):
        whole = _domains(recipe) is None
        labelled = data.load(split, getattr(transfer, "labels_per_class", ()), _task(recipe), whole=whole)
        joint.check(joint.load(split, labelled), labelled)


def _task(recipe: Recipe) -> str:
    return getattr(getattr(recipe, "transfer", None), "task", CLASSIFICATION)


def require_domains(recipe: Recipe, ingested: Artifact) -> None:
    """Refuse domains that the data does not have, and such with different label sets."""
    if given := _domains(recipe):
        domains.pairs(ingested.table(ROWS_FILE, [DOMAIN, LABEL]), given)


def require_domain_rows(recipe: Recipe, split: Artifact) -> None:
    """Refuse domains of too few rows or labels in a split."""
    if given := _domains(recipe):
        transfer: Any = getattr(recipe, "transfer", None)
        domains.check(split.table(SPLITS_FILE, [DOMAIN, SPLIT, LABEL]), given, transfer.labels_per_class)


def _domains(recipe: Recipe) -> DomainsConfig | None:
    """Where labels and test rows are to be of different domains: which."""
    transfer = getattr(recipe, "transfer", None)
    given: DomainsConfig | None = getattr(transfer, "domains", None)
    return given if given and given.given and getattr(transfer, "strategies", []) else None


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
    info = adopted.json("encoder.json")
    network = {"name": info["backbone"], "stem": info["stem"], "pool": info.get("pool", "network")}
    _check_strategies(recipe, network, {"modality": info["modality"], "input_shape": tuple(info["input_shape"])})


def check_request(recipe: Recipe, to_run: Sequence[Planned]) -> None:
    """Refuse what no stage that is to run could do, before any does; of stages that are cached nothing is asked."""
    for entry in to_run:
        if entry.stage.check:
            entry.stage.check(entry.config)
    if any(entry.name == "pretrain" for entry in to_run):
        require_used_policies(recipe)
        require_fitting_method(recipe)
    if any(entry.name == "transfer" for entry in to_run):
        require_fitting_encoders(recipe)
        require_fitting_strategies(recipe)
    if any(entry.name == "normalize" for entry in to_run):
        require_fitting_encoder(recipe)


@dataclass(frozen=True)
class Check:
    """What a stage that is to run needs of an earlier one."""

    after: str
    """Name of the stage that is read."""
    stage: str
    """Name of the stage that would fail."""
    check: Callable[[Recipe, Artifact], None]


CHECKS = (
    Check("adopt", "transfer", require_strategies_of_encoder),
    Check("ingest", "transfer", require_labels),
    Check("normalize", "transfer", require_stored_targets),
    Check("ingest", "transfer", require_domains),
    Check("normalize", "transfer", require_fitting_encoders),
    Check("normalize", "transfer", require_fitting_strategies),
    Check("split", "pretrain", require_rows),
    Check("normalize", "pretrain", require_fitting_method),
    Check("split", "transfer", require_test_labels),
    Check("split", "transfer", require_usable_labels),
    Check("split", "transfer", require_targets),
    Check("split", "transfer", require_domain_rows),
)


def cluster_address(given: str | None) -> str | None:
    """host:port of the cluster that the recipe or RAY_ADDRESS names; None for a local Ray."""
    address = given or "local"
    if address == "auto":
        address = ADDRESS_FILE.read_text().strip() if ADDRESS_FILE.exists() else "no address file"
    return None if address == "local" else address


@contextlib.contextmanager
def ray_environment(recipe: Recipe) -> Iterator[None]:
    """RAY_ADDRESS, which stages read, as host:port of the cluster; absent for a local Ray."""
    before = os.environ.pop("RAY_ADDRESS", None)
    address = cluster_address(recipe.ray_address or before)
    if address:
        os.environ["RAY_ADDRESS"] = address
    try:
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before


def check_ray(recipe: Recipe) -> None:
    """Refuse to start when nothing listens at the Ray address.

    Raises:
        RequestError: the address is not host:port, or nothing answers there.
    """
    address = cluster_address(recipe.ray_address or os.environ.get("RAY_ADDRESS"))
    if address is None:
        return
    where = "ray_address" if recipe.ray_address else "RAY_ADDRESS"
    problem = unreachable(address)
    if problem:
        raise RequestError(
            f"{where}: no Ray cluster at {address} ({problem}); start one there (ray start --head), correct the "
            "address, or unset it for a local Ray"
        )


def unreachable(address: str) -> str | None:
    """Why nothing can be reached at [ray://]host:port, or None where something listens."""
    try:
        require_answer(address)
    except RequestError as error:
        return str(error.__cause__ or "expected host:port")
    except OverflowError as error:  # no such port
        return str(error)
    return None
