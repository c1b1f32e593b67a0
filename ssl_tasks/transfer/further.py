"""Further encoders that a transfer combines with the run's own: `transfer.encoders`."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.adoption.reference import ROLE
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.norms import sample, settle
from ssl_tasks.store.references import find

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ssl_tasks.encoder import EncoderInfo
    from ssl_tasks.transfer.base import IntArray

KEY = "transfer.encoders"
BATCH = 256
"""Rows of one forward pass."""
Weights = Literal["encoder", "initial"]


@dataclass(frozen=True)
class Further:
    """One of them."""

    artifact: Artifact
    info: EncoderInfo

    @property
    def name(self) -> str:
        """Its method and the start of its fingerprint."""
        return f"{self.info.method} {self.artifact.fingerprint[:8]}"

    def build(self, view_sides: Mapping[str, int]) -> nn.Module:
        """Its architecture, with weights that nobody trained.

        Args:
            view_sides: as in `build_backbone`; views are drawn for it as for the run's own encoder.
        """
        from ssl_tasks.backbones import build_backbone

        info = self.info
        return build_backbone(**info.network, **info.inputs, seed=info.seed, view_sides=view_sides)


def read(references: Sequence[str], store: str) -> list[Further]:
    """The pretrain artifacts that `transfer.encoders` names.

    Args:
        references: fingerprints, or `<store>/objects/<fingerprint>`.
        store: URI of the run's own store.

    Raises:
        RequestError: there is no such artifact, it is damaged, or no encoder.
    """
    from ssl_tasks.encoder import ENCODER_FILE, EncoderInfo

    artifacts = [find(reference, store, key=KEY, stage="pretrain") for reference in references]
    return [Further(one, EncoderInfo.model_validate(one.json(ENCODER_FILE))) for one in artifacts]


def check(found: Sequence[Further], stats: Mapping[str, Any], own: Collection[str] = ()) -> None:
    """Refuse encoders that cannot be combined with the run's own on data of these statistics.

    Args:
        own: fingerprints by which the run's own encoder is known.

    Raises:
        RequestError: one is the run's own or that of another reference, where an encoder that was adopted is the one
            it was adopted from, or it was trained on data that was normalized otherwise.
    """
    from ssl_tasks.encoder import differing_keys

    names: dict[str, str] = {}
    for one in found:
        origin = one.artifact.manifest.parents.get(ROLE, one.artifact.fingerprint)
        if origin in names:
            raise RequestError(f"{KEY}: {names[origin]} and {one.name} are the same encoder; name each once")
        names[origin] = one.name
        if not {origin, one.artifact.fingerprint}.isdisjoint(own):
            raise RequestError(f"{KEY}: {one.name} is the run's own encoder, which takes part anyway; leave it out")
        if differing := differing_keys(one.info.stats, stats):
            raise RequestError(
                f"{KEY}: {one.name} was trained on data that was normalized otherwise ({', '.join(differing)} differ); "
                "pretrain it on this recipe's data stages, as pretextflow compare does, or leave it out"
            )


def embed(
    one: Further, weights: Weights, normalize: Artifact, train: IntArray, device: torch.device
) -> NDArray[np.float32]:
    """(N, D) embeddings of all rows in payload order, as the stage embed gives them for the run's own encoder: on disk
    and mapped, for all together may be larger than the memory.

    Raises:
        StageError: an embedding is not finite.
    """
    import torch

    from ssl_tasks.encoder import encode, load_encoder, ready
    from ssl_tasks.shards import Shards

    shards = Shards.open(normalize)
    encoder = ready(load_encoder(one.artifact, weights), device)
    if weights == "initial":
        settle(encoder, lambda rows: torch.from_numpy(shards.take(rows)).to(device), sample(train), BATCH)
    with tempfile.TemporaryFile() as file:
        stored = np.memmap(file, np.float32, "w+", shape=(len(shards), encoder.num_features))
    for start in range(0, len(shards), BATCH):
        positions = np.arange(start, min(start + BATCH, len(shards)))
        part = encode(encoder, torch.from_numpy(shards.take(positions))).numpy()
        if not np.isfinite(part).all():
            raise StageError(f"{KEY}: {one.name}: an embedding is not finite")
        stored[positions] = part
    stored.flush()
    return np.asarray(stored)
