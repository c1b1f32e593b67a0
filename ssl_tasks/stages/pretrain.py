"""Pretrain: train an encoder on the train rows by a pretext method, on Ray Train."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ssl_tasks import methods, modalities
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.modalities.captions import CAPTIONS
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.store.references import resolve
from ssl_tasks.training.config import PretrainConfig

if TYPE_CHECKING:
    from ssl_tasks.training.job import Job


def check(config: PretrainConfig) -> None:
    """Refuse, before any stage runs, options that the method or the workers cannot take."""
    from ssl_tasks.methods.base import refuse_coupled, refuse_few_rows  # imports torch

    options = methods.resolve(config.method.options(), config.modality)
    _check_workers(config)
    _check_gpus(config)
    _check_sharding(config)
    method = methods.spec(config.method.name).method
    refuse_coupled(method, options, config.accumulate)
    refuse_few_rows(method, config.method.name, config.rows_in_statistics)
    method.check(options, config.batch_size)


def _check_workers(config: PretrainConfig) -> None:
    if not config.world_sizes:
        asked = config.num_workers
        workers = f"{asked[0]} to {asked[1]}" if isinstance(asked, tuple) else f"{asked}"
        raise RequestError(
            f"pretrain.batch_size: {config.batch_size} cannot be shared by {workers} workers in "
            f"{config.accumulate} parts; use a multiple of {config.least_workers * config.accumulate}"
        )
    if config.is_elastic and not config.sync_batch_norm:
        raise RequestError(
            f"pretrain.num_workers: with {list(config.world_sizes)} workers the batch statistics of each would change "
            "with their number, and so the results; set pretrain.sync_batch_norm=true, or one number"
        )


def _check_gpus(config: PretrainConfig) -> None:
    share, several = config.gpus_per_worker, config.world_sizes[-1] > 1
    if share != int(share) and (share > 1 or several):
        raise RequestError(
            f"pretrain.gpus_per_worker: {share:g} is no whole number; a share of a GPU is for a single worker, as NCCL "
            "refuses two on one GPU"
        )


def _check_sharding(config: PretrainConfig) -> None:
    """What cannot be cut: FSDP2 takes parameters in their own order of memory, and averaged weights would be copies."""
    if config.sharding == "none":
        return
    wrong = {
        "layout": config.layout == "channels_last",
        "compile": config.compile == "always",
        "ema_decay": config.ema_decay > 0,
    }
    mend = {"layout": "contiguous or auto", "compile": "never or auto", "ema_decay": "0"}
    for key in (key for key, is_wrong in wrong.items() if is_wrong):
        raise RequestError(
            f"pretrain.{key}: {getattr(config, key)} does not go with pretrain.sharding={config.sharding}; set it to "
            f"{mend[key]}, or sharding to none"
        )


def check_rows(config: PretrainConfig, num_rows: int) -> list[str]:
    """As `check`, with the number of train rows; what works but hardly as it is meant to."""
    options = methods.resolve(config.method.options(), config.modality)
    return methods.spec(config.method.name).method.check(options, config.batch_size, num_rows)


def run(config: PretrainConfig, out: Output, normalized: Artifact, split: Artifact, augmented: Artifact) -> Artifact:
    """Write the encoder, its random start, and loss and health over steps.

    Reads train rows only, and never their labels; a kNN probe on val rows watches the features. A run that was
    stopped goes on from its newest checkpoint.

    Raises:
        RequestError: the batch is larger than the data, the method needs captions and the data has none, or the cluster
            cannot hold the workers.
        StageError: the loss became NaN, the features collapsed, or workers kept failing.
    """
    from ssl_tasks.cluster.train import train

    job = make_job(config, out, normalized, split, augmented)
    warnings = check_rows(config, len(job.plan.positions))
    measured = train(job, os.environ.get("RAY_ADDRESS"))
    warnings = [*warnings, *measured.get("warnings", [])]
    measured |= {"warnings": warnings} if warnings else {}
    return out.artifact(rows=len(job.plan.positions), measured=measured)


def make_job(
    config: PretrainConfig,
    out: Output,
    normalized: Artifact,
    split: Artifact,
    augmented: Artifact,
    until: int | None = None,
) -> Job:
    """What is to be trained, checked; it pauses at step `until` where that is given.

    Raises:
        RequestError: the batch is larger than the data, or options do not go together.
    """
    from ssl_tasks.training.job import Job
    from ssl_tasks.training.setup import require_captions

    check(config)
    view_names = methods.view_policies(config.method.options(), config.modality)
    initial = (
        resolve(config.init_from, out, key="pretrain.init_from", stage="pretrain", role="init_from")
        if config.init_from
        else None
    )
    reads_text = CAPTIONS in methods.spec(config.method.name).needs
    job = Job(config, out, normalized, split, augmented, view_names, initial, until, reads_text)
    require_captions(config, job.text_shape)
    assert job.plan.steps_per_epoch > 0  # the plan refuses a batch larger than the data
    return job


def parts(config: PretrainConfig) -> dict[str, int]:
    """Versions of the method, of those that it combines, and of the modality."""
    modality = modalities.require(config.modality)
    return {**methods.versions(config.method.options()), modality: modalities.VERSIONS[modality]}


STAGE = Stage("pretrain", PretrainConfig, ("normalize", "split", "augment"), run, version=3, parts=parts, check=check)
