"""Put a method together for one rank: backbone, starting weights, precision, synchronized norms, DDP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks import methods
from ssl_tasks.backbones import build_backbone
from ssl_tasks.encoder import EncoderInfo, load_weights
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, TrainStats, refuse_coupled
from ssl_tasks.modalities.captions import CAPTIONS, TextShape
from ssl_tasks.policy import BASE, PLAIN, Views
from ssl_tasks.training import sharding
from ssl_tasks.training.collectives import convert_sync_batchnorm
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import Job

STATS_ROWS = 10_000


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together."""

    rank: int
    world: int
    device: torch.device


def build_method(job: Job) -> tuple[Method, dict[str, Tensor]]:
    """The method before step 0, on the CPU, and the weights of its backbone as initialized at random.

    Raises:
        RequestError: backbone, `init_from`, data and the sizes of views do not fit each other.
    """
    config, shape = job.config, job.modality.input_shape(job.stats)
    backbone = _backbone(config, shape, job.view_names, job.views)
    random_weights = _copy(backbone)
    if job.initial is not None:
        _start_from(backbone, job)
    method = _method(config, backbone, shape, job.text_shape)
    if job.initial is None:  # with what the method has fixed, such as a ViT's positions, which the encoder has too
        random_weights = _copy(backbone)
    refuse_accumulation(method, config.accumulate, config.sync_batch_norm)
    sharding.refuse(method, config)
    method.prepare(_train_stats(job))
    return (method.double() if config.precision == "fp64" else method), random_weights


def _copy(backbone: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def rehearse(
    config: PretrainConfig,
    shape: tuple[int, ...],
    view_names: tuple[str, ...],
    views: Views,
    text: TextShape | None = None,
) -> None:
    """Put backbone and method together for inputs of `shape`, and throw them away.

    Args:
        text: of the captions, where the data has some.

    Raises:
        RequestError: backbone, method, size, views, captions and batch do not fit each other.
    """
    require_captions(config, text)
    method = _method(config, _backbone(config, shape, view_names, views), shape, text)
    refuse_accumulation(method, config.accumulate, config.sync_batch_norm)
    sharding.refuse(method, config)
    if config.rows_in_statistics == 1:
        _refuse_single_row(config, method.backbone, shape)


def _refuse_single_row(config: PretrainConfig, backbone: nn.Module, shape: tuple[int, ...]) -> None:
    """A batch norm that sees one pixel of one row has no statistics."""
    try:
        with torch.no_grad():
            backbone.train()(torch.zeros(1, *shape))
    except ValueError as error:
        raise RequestError(
            f"pretrain.batch_size: {config.batch_size} rows leave each worker's part one, and the batch norms of "
            f"{config.backbone} cannot take a single row ({error}); use a larger batch, or pretrain.sync_batch_norm"
        ) from error


def require_captions(config: PretrainConfig, text: TextShape | None) -> None:
    """Refuse a method of images and captions for data without captions.

    Raises:
        RequestError: names the key that says that there are some.
    """
    if text is None and CAPTIONS in methods.spec(config.method.name).needs:
        raise RequestError(
            f"pretrain.method.name: {config.method.name} learns from images with captions; set ingest.captions=true if "
            "the data has some (ingest.text_column of a list or data set, .txt beside the images in tars)"
        )


def _backbone(config: PretrainConfig, shape: tuple[int, ...], view_names: tuple[str, ...], views: Views) -> nn.Module:
    backbone = build_backbone(
        config.backbone,
        modality=config.modality,
        input_shape=shape,
        stem=config.stem,
        pool=methods.pool(config.method.options(), config.modality),
        seed=config.seed,
        view_sides=_view_sides(view_names, views),
    )
    if config.modality == "image":
        from ssl_tasks.backbones.stems import require_whole_patches  # timm costs seconds

        require_whole_patches(backbone, config.backbone, shape)
    return backbone


def _method(config: PretrainConfig, backbone: nn.Module, shape: tuple[int, ...], text: TextShape | None) -> Method:
    options, found = methods.resolve(config.method.options(), config.modality), methods.spec(config.method.name)
    more: dict[str, Any] = {"text": text} if CAPTIONS in found.needs else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        return found.method(options, backbone, shape, **more)


def _view_sides(view_names: tuple[str, ...], views: Views) -> dict[str, int]:
    """Pixels a side of the method's views that have a size of their own, by the key that sets it."""
    sides = {}
    for name in view_names:
        size = None if name == PLAIN else views.policy(name).size
        if size is not None:
            base = name not in views.policies or name == BASE
            sides["augment.size" if base else f"augment.policies.{name}.size"] = size
    return sides


def _start_from(backbone: nn.Module, job: Job) -> None:
    assert job.initial is not None
    info = EncoderInfo.model_validate(job.initial.json("encoder.json"))
    theirs = (info.backbone, info.stem, info.modality, info.input_shape)
    ours = (job.config.backbone, job.config.stem, job.config.modality, job.modality.input_shape(job.stats))
    if theirs != ours:
        raise RequestError(f"pretrain.init_from: that encoder is {theirs}, and this run asks for {ours}")
    load_weights(backbone, job.initial.path("encoder.safetensors"))


def refuse_accumulation(method: Method, accumulate: int, sync_batch_norm: bool) -> None:
    """Accumulated parts must add up to the whole batch.

    Raises:
        RequestError: the loss, or synchronized batch norm, couples the rows of a batch.
    """
    refuse_coupled(type(method), method.config, accumulate)
    if accumulate > 1 and sync_batch_norm and any(isinstance(module, _BatchNorm) for module in method.modules()):
        raise RequestError(
            "pretrain.accumulate: the backbone's batch norm couples all rows of a batch; set it to 1, or "
            "pretrain.sync_batch_norm to false, which gives every part its own statistics"
        )


def _train_stats(job: Job) -> TrainStats:
    drawn = job.plan.order(0)[:STATS_ROWS].copy()
    drawn.sort()
    payload = torch.from_numpy(job.shards.take(drawn))
    positions = torch.from_numpy(job.plan.positions.copy())
    return TrainStats(len(positions), job.modality.to_input(payload, job.stats), positions, job.stats)


def place(method: Method, ranks: Ranks, layout: str, config: PretrainConfig) -> Method:
    """Move the method to the device and memory layout; synchronize norms and recompute activations where asked."""
    method = method.to(ranks.device)
    if layout == "channels_last":
        method = method.to(memory_format=torch.channels_last)
    if config.sync_batch_norm:
        convert_sync_batchnorm(method, ranks.device.type, ranks.world)
    if config.activation_checkpointing:
        sharding.recompute(method)
    return method


def wrap(method: Method, ranks: Ranks, compiled: bool, sync_batch_norm: bool) -> Callable[[Batch, str], Any]:
    """What the loop calls: the method itself, compiled where chosen, inside DDP where there are more ranks."""
    module: Any = torch.compile(method) if compiled else method
    if ranks.world == 1:
        return module  # type: ignore[no-any-return]
    return DistributedDataParallel(
        module,
        device_ids=[ranks.device.index] if ranks.device.type == "cuda" else None,
        broadcast_buffers=not sync_batch_norm,
        gradient_as_bucket_view=True,
        find_unused_parameters=len(method.phases) > 1,
    )


def as_input(batch: Batch, layout: str, precision: str) -> Batch:
    """The batch in the model's layout and, for fp64, dtype."""
    views = []
    for view in batch.views:
        view = view.double() if precision == "fp64" else view
        if layout == "channels_last" and view.ndim == 4:
            view = view.contiguous(memory_format=torch.channels_last)
        views.append(view)
    return dataclasses.replace(batch, views=views)
