"""Puts together what a transfer works with: labelled rows, features by each encoder, and a context."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_tasks import transfer as strategies_there_are
from ssl_tasks.adoption.reference import ROLE as ADOPTED
from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import PRETRAINED_FILE, RANDOM_INIT_FILE, STATS_FILE
from ssl_tasks.transfer import checks, data, domains, further, joint, raw
from ssl_tasks.transfer.base import Context
from ssl_tasks.transfer.config import TransferConfig
from ssl_tasks.transfer.context import make_context
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.further import Further
from ssl_tasks.transfer.rows import Rows
from ssl_tasks.transfer.tables import RANDOM_INIT, RAW_INPUT
from ssl_tasks.transfer.targets import DENSE

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EncoderArtifacts:
    """The artifacts that say what an encoder is and what it makes of the data."""

    normalize: Artifact
    split: Artifact
    pretrain: Artifact
    embed: Artifact
    augment: Artifact | None = None
    """Whose policy views are drawn by, where it is not that of the encoder's own training."""


@dataclass(frozen=True)
class Assembly:
    """All that fits are made of."""

    labelled: Labelled
    method: str
    """Name of the pretext method."""
    encoders: dict[str, Callable[[], Rows]]
    """Name of the method or of a baseline to a loader of its embeddings or feature maps."""
    context: Context
    others: list[Further]
    further: Callable[[str], list[Rows]]
    """A method to the embeddings by the other encoders."""


def assemble(
    config: TransferConfig,
    encoder: EncoderArtifacts,
    store: str,
    device: torch.device,
    here: torch.device,
    stop: threading.Event,
) -> Assembly:
    """Read the labelled rows, check what is asked of them, and make loaders of the rest.

    Args:
        store: where further encoders are looked for.
        device: on which fits train networks.
        here: on which this process computes features.
        stop: ends fits that train, once it is set.

    Raises:
        RequestError: labels, domains, strategies and encoders do not go together.
    """
    whole, normalize = not config.domains.given, encoder.normalize
    labelled = data.load(encoder.split, config.labels_per_class, config.task, normalize, whole=whole)
    if not whole:
        domains.check(labelled.splits, config.domains, config.labels_per_class)
    others = _others(config, encoder, store)

    def contextual(on: torch.device, beside: Sequence[Further]) -> Context:
        rows, classes = labelled.train, labelled.classes
        return make_context(config, normalize, encoder.pretrain, rows, classes, on, stop, beside, encoder.augment)

    context = contextual(device, others)
    if checks.needed(config.strategies):
        checks.check(config.strategies, context.blueprint())
    if strategies_there_are.any_joint(config.strategies):
        context = replace(context, targets=joint.load(encoder.split, labelled))
        joint.check(context.targets, labelled)

    method = encoder.pretrain.json("encoder.json")["method"]
    encoders = _embeddings(config, encoder, labelled, method)
    if config.task in DENSE:
        encoders = _maps(contextual(here, ()), labelled, list(encoders))

    @functools.lru_cache(maxsize=1 if whole else 2)  # of one method at a time, but for several targets
    def features(method: str) -> list[Rows]:
        weights: further.Weights = "initial" if method == RANDOM_INIT else "encoder"
        return [further.embed(one, weights, normalize, labelled.train, here) for one in others]

    return Assembly(labelled, method, encoders, context, others, features)


def _others(config: TransferConfig, encoder: EncoderArtifacts, store: str) -> list[Further]:
    others = further.read(config.encoders, store)
    adopted = encoder.pretrain.manifest.parents.get(ADOPTED, "")
    further.check(others, encoder.normalize.json(STATS_FILE), {encoder.pretrain.fingerprint, adopted})
    return others


def _embeddings(
    config: TransferConfig, encoder: EncoderArtifacts, labelled: Labelled, method: str
) -> dict[str, Callable[[], Rows]]:
    """Loaders by name, the pretrained encoder first."""
    normalize, modality = encoder.normalize, encoder.pretrain.json("encoder.json")["modality"]
    loaders: dict[str, Callable[[], Rows]] = {
        name: functools.partial(data.embeddings, encoder.embed, file, labelled.splits)
        for name, file in ((method, PRETRAINED_FILE), (RANDOM_INIT, RANDOM_INIT_FILE))
    }
    if config.raw_input:
        loaders[RAW_INPUT] = lambda: raw.RawInput(normalize, modality, normalize.json(STATS_FILE))
    return loaders


def _maps(context: Context, labelled: Labelled, methods: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Makers of the feature maps of the labelled rows, by name of the encoder."""
    from ssl_tasks.transfer import feature_maps

    known = labelled.splits["label"].is_valid().to_numpy()
    rows, train = np.flatnonzero(known), labelled.train[known[labelled.train]]

    def maker(method: str) -> Callable[[], Any]:
        network = None if method == RAW_INPUT else method
        return lambda: feature_maps.maps(context, network, rows, train, len(known))

    return {method: maker(method) for method in methods}
