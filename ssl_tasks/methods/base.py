"""The method contract: an `nn.Module` that owns a backbone and says which views it needs.

One file per method holds its config, module and loss; one line in `methods/__init__.py` lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_tasks.backbones import Pool
from ssl_tasks.config import Config
from ssl_tasks.errors import RequestError

CONSTANT_RATE = "constant_rate"
"""True in a parameter group whose learning rate stays at its peak after the warm-up."""


class MethodConfig(Config):
    """Hyper-parameters of a method, defaults from its paper."""

    name: str


@dataclass(frozen=True)
class ViewSpec:
    """Which views of a sample a method needs, each by the name of its policy.

    `plain` is the sample and `augment` the recipe's base policy; other names are looked up in the recipe's
    `augment.policies`. Multi-crop is ("augment", "augment", "local", "local", ...); local views are smaller.
    """

    policies: tuple[str, ...]


@dataclass
class Batch:
    """What one rank sees in one (micro) step; B rows, the same for any number of workers once put together."""

    views: list[Tensor]
    """Normalized float inputs on the device, one tensor per view: (B, C, H, W) or (B, D); sizes may differ."""
    positions: Tensor
    """(B,) int64, the rows' positions in the payload."""
    keys: Tensor
    """(B,) int64, random per (seed, step, sample): all of a method's own noise is drawn from them."""
    text: Tensor | None = None
    """(B, L) int64, the captions' token ids, for methods that need captions; see `modalities.captions`."""


@dataclass(frozen=True)
class TrainStats:
    """What `prepare` may look at: train rows only."""

    num_rows: int
    sample: Tensor
    """(N, C, H, W) or (N, D) normalized inputs of at most 10,000 train rows, drawn with the run's seed."""
    positions: Tensor
    """(num_rows,) int64, all train rows' positions in the payload, ascending; `Batch.positions` are among them."""
    normalization: Mapping[str, Any] = field(default_factory=dict)
    """What the modality fitted on train rows: with it inputs find their way back to what was stored."""


class Method(nn.Module):
    """Base of every method. DDP wraps it, so the loss is computed in `forward`."""

    views: ClassVar[ViewSpec]
    phases: ClassVar[tuple[str, ...]] = ("main",)
    """One forward, backward and optimizer step for each phase and batch."""
    pool: ClassVar[Pool] = "network"
    """What becomes of a ViT's tokens: methods that predict patches leave the class token untrained."""
    couples_batch: ClassVar[bool] = False
    """Whether a row's loss depends on other rows (negatives): then a batch cannot be accumulated in parts."""
    shards: ClassVar[bool] = True
    """Whether its weights may lie in parts on the ranks (`training.sharding`): not where the loss holds gradients,
    or where one rank alone looks at features."""
    least_rows: ClassVar[int] = 1
    """Fewest rows that may share batch statistics. A head's batch norm cannot take one row, and of two it makes -1 and
    1 whatever they are: methods with such heads need 3 rows, or 2 that bring two views to it at once."""

    backbone: nn.Module
    """What transfers: input -> (B, num_features)."""
    num_features: int

    def __init__(self, config: Any, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Args: config of the method's own class; input_shape is (C, H, W) or (D,)."""
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.num_features = int(backbone.num_features)  # type: ignore[arg-type]  # nn.Module types attributes as tensors

    @classmethod
    def views_for(cls, config: Any) -> ViewSpec:
        """The views that the method needs with these options; `views` where they do not depend on them."""
        return cls.views

    @classmethod
    def check(cls, config: Any, batch_size: int, num_rows: int | None = None) -> list[str]:
        """Refuse options that do not go with the batch or, where that is known by now, with the train rows.

        Args:
            batch_size: rows of a global step.

        Returns:
            What works but hardly as it is meant to, to be told with the results.

        Raises:
            RequestError: names the key.
        """
        return []

    @classmethod
    def pool_for(cls, config: Any) -> Pool:
        """What becomes of a ViT's tokens with these options; `pool` where it does not depend on them."""
        return cls.pool

    @classmethod
    def coupled_by(cls, config: Any) -> tuple[str, ...]:
        """Names of the losses that couple the rows of a batch with these options; see `couples_batch`."""
        return (config.name,) if cls.couples_batch else ()

    def prepare(self, stats: TrainStats) -> None:
        """Compute what is needed once from train rows, into buffers, before step 0."""

    def chance(self) -> dict[str, float]:
        """What logged values are, by name, where a method only guesses; a run that ends there says so."""
        return {}

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """Called at the start of every epoch; `embed()` gives features of all train rows, in payload order."""

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss` (mean over this rank's rows) and detached scalars to log."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the share of training that is done: teachers, queues."""

    def param_groups(self, phase: str) -> list[dict[str, Any]]:
        """What the phase's optimizer moves; biases and norms without weight decay. See also `CONSTANT_RATE`."""
        decay, plain = split_decay(self.named_parameters())
        return [{"params": decay}, {"params": plain, "weight_decay": 0.0}]


def length_from_checkpoint(module: nn.Module, name: str) -> None:
    """Let a checkpoint bring the buffer `name` in whatever length it was saved with."""

    def fit(owner: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
        stored = state.get(f"{prefix}{name}")
        if stored is not None:
            setattr(owner, name, torch.empty_like(stored).to(getattr(owner, name)))

    module.register_load_state_dict_pre_hook(fit)  # type: ignore[no-untyped-call]  # untyped in torch


def refuse_coupled(method: type[Method], config: MethodConfig, accumulate: int) -> None:
    """Parts of a batch must add up to the whole.

    Raises:
        RequestError: the batch is to be accumulated, and the loss couples its rows.
    """
    coupled = method.coupled_by(config)
    if accumulate > 1 and coupled:
        raise RequestError(
            f"pretrain.accumulate: the loss of {' and '.join(coupled)} couples all rows of a batch and cannot be "
            "accumulated; set it to 1"
        )


def refuse_few_rows(method: type[Method], name: str, rows: int) -> None:
    """Batch statistics of too few rows leave nothing to learn.

    Args:
        rows: that share batch statistics.

    Raises:
        RequestError: they are fewer than `least_rows`.
    """
    if rows < method.least_rows:
        raise RequestError(
            f"pretrain.batch_size: {name} needs {method.least_rows} rows or more that share batch statistics, and here "
            f"they are {rows}; use a larger batch, or with pretrain.sync_batch_norm=false fewer workers and parts"
        )


def refuse_partial_queue(queue_size: int | None, batch_size: int) -> None:
    """A queue takes in whole batches, as in the papers' code.

    Raises:
        RequestError: its length is no multiple of the batch.
    """
    if queue_size and queue_size % batch_size:
        nearest = max(1, round(queue_size / batch_size)) * batch_size
        raise RequestError(
            f"pretrain.method.queue_size: {queue_size} is no multiple of pretrain.batch_size, {batch_size}; "
            f"use {nearest}"
        )


def split_decay(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with two or more dimensions, and the rest (biases, norms), which take no weight decay."""
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for _, parameter in named:
        if parameter.requires_grad:
            (decay if parameter.ndim >= 2 else plain).append(parameter)
    return decay, plain


@dataclass(frozen=True)
class MethodSpec:
    """What the listing knows of a method."""

    name: str
    config: type[MethodConfig]
    method: type[Method]
    modalities: tuple[str, ...]
    family: str
    """What the method learns from, in a few words: the listing is ordered by it."""
    paper: str
    """Title and arXiv number or venue."""
    needs: tuple[str, ...] = ()
    """What it cannot do without, in words for the listing: a ViT, small crops, large batches. With
    `modalities.captions.CAPTIONS` its batches have `text`, and its module is made with `text=TextShape(...)`."""
    version: int = 1
    """Of methods that other packages bring; ours have theirs in `methods.METHODS`."""
