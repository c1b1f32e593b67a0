"""The context of one transfer: samples and networks of a pretrain artifact, for strategies that train."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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

    from ssl_tasks.backbones import build_backbone
    from ssl_tasks.modalities import modality
    from ssl_tasks.shards import Shards

    info, stats = pretrain.json("encoder.json"), normalize.json(STATS_FILE)
    shards, kind, policy = Shards.open(normalize), modality(info["modality"]), policy_of(pretrain, augment)
    building = threading.Lock()  # initialization borrows torch's global generator
    sides = {"augment.size": policy.size} if policy.size else {}

    def payload(positions: IntArray) -> Tensor:
        if stop and stop.is_set():
            raise InterruptedError("the transfer was stopped")  # ends the fits that still run beside a failed one
        return torch.from_numpy(shards.take(positions)).to(device)

    def to_input(batch: Tensor) -> Tensor:
        return kind.to_input(batch, stats)

    like: dict[str, Any] = {
        "modality": info["modality"],
        "input_shape": tuple(info["input_shape"]),
        "view_sides": sides,
    }

    def build(seed: int) -> nn.Module:
        with building:
            pool = info.get("pool", "network")
            return build_backbone(info["backbone"], stem=info["stem"], pool=pool, seed=seed, **like)

    def built(one: Further) -> nn.Module:
        with building:
            return one.build(sides)

    def student(seed: int) -> nn.Module:
        with building:
            return build_student(options, seed=seed, **like)

    def settled(network: nn.Module) -> None:
        settle(network.to(device), lambda rows: to_input(payload(rows)), sample(train), NORM_BATCH)

    def both(of: Artifact, like: Callable[[], nn.Module]) -> dict[str, Callable[[], nn.Module]]:
        trained, untrained = (_network(of, weights, settled) for weights in WEIGHTS)
        return {info["method"]: _copies(trained, like, building), RANDOM_INIT: _copies(untrained, like, building)}

    return Context(
        payload=payload,
        augment=lambda batch, keys: kind.augment(batch, policy, keys),
        to_input=to_input,
        build=build,
        networks=both(pretrain, lambda: build(0)),
        train=train,
        options=options,
        student=student if options.distill.student else None,
        classes=classes,
        inputs=stats.get("columns", ()),
        remake=functools.partial(
            make_context, options, normalize, pretrain, train, classes, device, None, further, augment
        ),
        further={one.name: both(one.artifact, functools.partial(built, one)) for one in further},
    )


def _network(of: Artifact, weights: Weights, settled: Callable[[nn.Module], None]) -> Callable[[], nn.Module]:
    """Reads a network; the batch norms of an untrained one get the statistics of train rows by `settled`."""

    def read() -> nn.Module:
        from ssl_tasks.encoder import load_encoder

        network = load_encoder(of, weights).backbone
        if weights == "initial":
            settled(network)
        return network.cpu()

    return read


def _copies(
    source: Callable[[], nn.Module], build: Callable[[], nn.Module], building: threading.Lock
) -> Callable[[], nn.Module]:
    """Makes new networks with the weights of `source`, which is read once, when the first is asked for."""
    loaded: dict[str, Tensor] = {}

    def network() -> nn.Module:
        made = build()
        with building:
            if not loaded:
                loaded.update(source().state_dict())
        made.load_state_dict(loaded)
        return made

    return network


def policy_of(pretrain: Artifact, augment: Artifact | None = None) -> ResolvedPolicy:
    """The base policy of `augment`, or of what the encoder was trained under."""
    if augment is None:
        store = pretrain.store
        augment = store.handle(store.manifest(pretrain.manifest.parents["augment"]))
    return Views.model_validate(augment.json(VIEWS_FILE)).policy(BASE)
