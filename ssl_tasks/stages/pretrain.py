"""Pretrain: train an encoder on the train rows by a pretext method, on Ray Train."""

from __future__ import annotations

import os

from ssl_tasks import methods, modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.training.config import PretrainConfig


def check(config: PretrainConfig) -> None:
    """Refuse, before any stage runs, options that the method or the workers cannot take."""
    methods.resolve(config.method.options(), config.modality)
    parts = config.num_workers * config.accumulate
    if config.batch_size % parts:
        raise RequestError(
            f"pretrain.batch_size: {config.batch_size} cannot be shared by {config.num_workers} workers in "
            f"{config.accumulate} parts; use a multiple of {parts}"
        )
    if config.accumulate > 1 and methods.spec(config.method.name).method.couples_batch:
        raise RequestError(
            f"pretrain.accumulate: the loss of {config.method.name} couples all rows of a batch and cannot be "
            "accumulated; set it to 1"
        )


def run(config: PretrainConfig, out: Output, normalized: Artifact, split: Artifact, augmented: Artifact) -> Artifact:
    """Write the encoder, its random start, and loss and health over steps.

    Reads train rows only, and never their labels; a kNN probe on val rows watches the features. A run that was
    stopped goes on from its newest checkpoint.

    Raises:
        RequestError: the batch is larger than the data, or the cluster cannot hold the workers.
        StageError: the loss became NaN, the features collapsed, or workers kept failing.
    """
    from ssl_tasks.cluster.train import train
    from ssl_tasks.training.job import Job

    check(config)
    num_views = len(methods.spec(config.method.name).method.views.policies)
    initial = _initial(config.init_from, out) if config.init_from else None
    job = Job(config, out, normalized, split, augmented, num_views, initial)
    assert job.plan.steps_per_epoch > 0  # the plan refuses a batch larger than the data
    measured = train(job, os.environ.get("RAY_ADDRESS"))
    return out.artifact(rows=len(job.plan.positions), measured=measured)


def _initial(init_from: str, out: Output) -> Artifact:
    """The encoder that `init_from` names."""
    uri, _, fingerprint = init_from.rpartition("/objects/")
    handle = Artifact(uri or out.uri, fingerprint, "pretrain", 0)
    try:
        found = handle.manifest
    except RequestError as error:
        raise RequestError(f"pretrain.init_from: {error}") from error
    if found.stage != "pretrain":
        raise RequestError(f"pretrain.init_from: {init_from} is an artifact of {found.stage}, not of pretrain")
    return handle


def parts(config: PretrainConfig) -> dict[str, int]:
    """Versions of the method and the modality."""
    name = config.method.name
    return {name: methods.version(name), config.modality: modalities.VERSIONS[modalities.require(config.modality)]}


STAGE = Stage("pretrain", PretrainConfig, ("normalize", "split", "augment"), run, parts=parts, check=check)
