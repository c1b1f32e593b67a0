"""The context of one transfer: samples and networks of a pretrain artifact, for strategies that train."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ssl_tasks.artifact import Artifact
from ssl_tasks.norms import sample, settle
from ssl_tasks.policy import BASE, ResolvedPolicy, Views
from ssl_tasks.schema import STATS_FILE, VIEWS_FILE
from ssl_tasks.transfer.base import Context, IntArray
from ssl_tasks.transfer.networks.students import build_student
from ssl_tasks.transfer.tables import RANDOM_INIT

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ssl_tasks.encoder import EncoderInfo
    from ssl_tasks.transfer.further import Further, Weights
    from ssl_tasks.transfer.options import Options

NORM_BATCH = 256
WEIGHTS: tuple[Weights, Weights] = ("encoder", "initial")


def make_context(
    options: Options,
    normalize: Artifact,
    pretrain: Artifact,
    train: IntArray,
    classes: Sequence[str],
    device: torch.device,
    stop: threading.Event | None = None,
    further: Sequence[Further] = (),
    augment: Artifact | None = None,
) -> Context:
    """Read nothing yet.

    Args:
        train: positions of all train rows.
        classes: their names, by number.
        device: the one that networks are trained on, which need not be of this machine: nothing is put there yet.
        stop: once it is set, `payload` raises `InterruptedError`.
        further: encoders that are combined with this one.
        augment: whose policy views are drawn by; None takes that of the encoder's own training, found by its parents.
    """
    import torch

    from ssl_tasks.encoder import ENCODER_FILE, EncoderInfo
    from ssl_tasks.modalities import modality
    from ssl_tasks.shards import Shards

    info, stats = EncoderInfo.model_validate(pretrain.json(ENCODER_FILE)), normalize.json(STATS_FILE)
    shards, kind, policy = Shards.open(normalize), modality(info.modality), policy_of(pretrain, augment)
    builder = _Builder(info, policy)

    def payload(positions: IntArray) -> Tensor:
        if stop and stop.is_set():
            raise InterruptedError("the transfer was stopped")  # ends the fits that still run beside a failed one
        return torch.from_numpy(shards.take(positions)).to(device)

    def to_input(batch: Tensor) -> Tensor:
        return kind.to_input(batch, stats)

    def settled(network: nn.Module) -> None:
        settle(network.to(device), lambda rows: to_input(payload(rows)), sample(train), NORM_BATCH)

    def both(of: Artifact, like: Callable[[], nn.Module]) -> dict[str, Callable[[], nn.Module]]:
        trained, untrained = (builder.copies(_network(of, weights, settled), like) for weights in WEIGHTS)
        return {info.method: trained, RANDOM_INIT: untrained}

    return Context(
        payload=payload,
        augment=lambda batch, keys: kind.augment(batch, policy, keys),
        to_input=to_input,
        build=builder.like_encoder,
        networks=both(pretrain, lambda: builder.like_encoder(0)),
        train=train,
        options=options,
        student=functools.partial(builder.student, options) if options.distill.student else None,
        classes=classes,
        inputs=stats.get("columns", ()),
        remake=functools.partial(
            make_context, options, normalize, pretrain, train, classes, device, None, further, augment
        ),
        further={one.name: both(one.artifact, functools.partial(builder.further, one)) for one in further},
    )


class _Builder:
    """Networks for the encoder's inputs, one at a time: initialization borrows torch's global generator."""

    def __init__(self, info: EncoderInfo, policy: ResolvedPolicy) -> None:
        self.building = threading.Lock()
        self.sides = {"augment.size": policy.size} if policy.size else {}
        self.network, self.inputs = info.network, info.inputs | {"view_sides": self.sides}

    def like_encoder(self, seed: int) -> nn.Module:
        """The encoder's architecture."""
        from ssl_tasks.backbones import build_backbone

        with self.building:
            return build_backbone(**self.network, seed=seed, **self.inputs)

    def student(self, options: Options, seed: int) -> nn.Module:
        """The network that `transfer.distill` names."""
        with self.building:
            return build_student(options, seed=seed, **self.inputs)

    def further(self, one: Further) -> nn.Module:
        """The architecture of a further encoder."""
        with self.building:
            return one.build(self.sides)

    def copies(self, source: Callable[[], nn.Module], build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        """Makes new networks with the weights of `source`, which is read once, when the first is asked for."""
        loaded: dict[str, Tensor] = {}

        def network() -> nn.Module:
            made = build()
            with self.building:
                if not loaded:
                    loaded.update(source().state_dict())
            made.load_state_dict(loaded)
            return made

        return network


def _network(of: Artifact, weights: Weights, settled: Callable[[nn.Module], None]) -> Callable[[], nn.Module]:
    """Reads a network; the batch norms of an untrained one get the statistics of train rows by `settled`."""

    def read() -> nn.Module:
        from ssl_tasks.encoder import load_encoder

        network = load_encoder(of, weights).backbone
        if weights == "initial":
            settled(network)
        return network.cpu()

    return read


def policy_of(pretrain: Artifact, augment: Artifact | None = None) -> ResolvedPolicy:
    """The base policy of `augment`, or of what the encoder was trained under."""
    if augment is None:
        store = pretrain.store
        augment = store.handle(store.manifest(pretrain.manifest.parents["augment"]))
    return Views.model_validate(augment.json(VIEWS_FILE)).policy(BASE)
