"""The recipe's `pretrain` section. Imports no torch: a cached run reads it and pays for nothing more."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, model_validator

from ssl_tasks import methods
from ssl_tasks.config import Config, artifact_reference, execution

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """Which optimizer moves the weights, and how far."""

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate, of the whole batch."""
    weight_decay: float = Field(1e-2, ge=0)
    """Decoupled for adamw, an L2 penalty for sgd and lars; never on biases and norms."""
    final_weight_decay: float | None = Field(None, ge=0)
    """What it goes to along half a cosine (DINO, arXiv 2104.14294, section 3.2); constant where not set."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd and lars."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of adamw."""
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate climbs; half a cosine follows."""
    final_fraction: float = Field(0.0, ge=0, le=1)
    """Share of the peak learning rate that the cosine ends at."""
    bias_rate: float = Field(1.0, gt=0)
    """Share of the learning rate that biases and norms get: lars does not adapt theirs (Barlow Twins: 0.024)."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest joint norm of all gradients."""

    @model_validator(mode="after")
    def _decay_has_a_start(self) -> OptimizerConfig:
        if self.final_weight_decay is not None and self.weight_decay == 0:
            raise ValueError("final_weight_decay: weight_decay is 0, and what it begins with must be above")
        return self


class MethodChoice(BaseModel):
    """A method's name and the options given for it; `methods.resolve` turns it into the method's own config.

    The options are hashed as given, so that a cached run need not import the method (and torch) to know its
    fingerprint.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)
    name: str = "simclr"

    @model_validator(mode="after")
    def _known(self) -> MethodChoice:
        methods.require_all(self.options())
        return self

    def options(self) -> dict[str, Any]:
        """Name and options."""
        return {"name": self.name, **(self.model_extra or {})}


def _as_choice(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_COUNT: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1)])


def _as_workers(value: Any) -> Any:
    try:
        if not isinstance(value, (list, tuple)):
            return _COUNT.validate_python(value)
        least, most = (_COUNT.validate_python(count) for count in value)
    except ValueError as error:  # one message in place of one for each kind of value
        raise ValueError("give a whole number from 1, or the least and the most of them as [1, 4]") from error
    if least > most:
        raise ValueError(f"the least of the range, {least}, is above the most, {most}")
    return least, most


class PretrainConfig(Config):
    """What is trained, for how long, and (execution fields) on what."""

    method: Annotated[MethodChoice, BeforeValidator(_as_choice)] = MethodChoice()
    backbone: str = "resnet18"
    """Images: a timm name. Tables: `mlp` or `mlp:<width>x<depth>`."""
    stem: Literal["auto", "small", "standard"] = "auto"
    init_from: str | None = artifact_reference()
    """Start from an encoder: the fingerprint of a pretrain artifact of this store, or the URI of one elsewhere."""
    epochs: int = Field(100, ge=1)
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, whatever `epochs` says."""
    batch_size: int = Field(256, ge=2)
    """Rows of a global step, over all workers."""
    accumulate: int = Field(1, ge=1)
    """Parts that each worker's share of a batch is cut into; for losses that are sums over rows."""
    shuffle_shards: int = Field(64, ge=1)
    """Shards whose rows are shuffled together; more than that are first shuffled as shards."""
    optimizer: OptimizerConfig = OptimizerConfig()
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Above 0 the encoder is this moving average of the weights."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    sync_batch_norm: bool = True
    """Batch statistics over all workers; without, each worker (and each accumulated part) has its own."""
    health_checks: int = Field(20, ge=1)
    """How often in a run feature spread, RankMe and, with labels on val, a kNN probe are measured."""
    modality: str = "image"
    seed: int = Field(0, ge=0)

    num_workers: Annotated[int | tuple[int, int], BeforeValidator(_as_workers)] = execution(1)
    """Processes that train together. With `[least, most]` as many of them as the cluster holds: fewer go on from the
    last checkpoint when nodes are lost, more when some join. Only numbers that share the batch evenly are used."""
    use_gpu: bool | Literal["auto"] = execution("auto")
    """auto: where the cluster has GPUs."""
    cpus_per_worker: int = execution(1, ge=1)
    """CPUs that Ray keeps free for each worker, besides those of its feed."""
    gpus_per_worker: float = execution(1.0, gt=0)
    """Where GPUs are used; a share only for a single worker: NCCL refuses two on one GPU."""
    resources_per_worker: dict[str, Annotated[float, Field(gt=0)]] = execution({})
    """Ray's custom resources, as in `{a100: 1}`; a local Ray declares them."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = execution("PACK")
    """Workers on few nodes or on many; STRICT_ refuses what is not one node, or a node each."""
    threads: int = execution(0, ge=0)
    """CPU threads of each worker; 0: cpus_per_worker where that is above 1, else its share of its node's cores."""
    feed_workers: int = execution(1, ge=1)
    """Ray Data tasks per worker that make views at the same time."""
    augment_on: Literal["workers", "device"] = execution("workers")
    """Where views are made: by the feed's tasks on CPUs, beside training, or where the model is, which then waits for
    them; for a GPU that has time to spare. On a CPU both give the same bits."""
    sharding: Literal["none", "fsdp"] = execution("none")
    """fsdp: each worker keeps a part of the weights, gradients and optimizer state, for networks that are too large for
    one device (FSDP2); checkpoints and encoders stay whole."""
    activation_checkpointing: bool = execution(False)
    """Keep only what goes into each block and compute the rest again in the backward pass: a third more time, less
    memory, the same bits."""
    layout: Literal["auto", "contiguous", "channels_last"] = execution("auto")
    compile: Literal["auto", "never", "always"] = execution("auto")
    checkpoint_every_steps: int = execution(200, ge=1)
    keep_checkpoints: int = execution(2, ge=1)
    max_failures: int = execution(2, ge=0)
    """Worker failures that Ray Train mends by going back to the last checkpoint."""
    profile_steps: int = execution(0, ge=0)
    """Trace so many steps of the first worker, after its third, into the artifact's trace.json.gz (ui.perfetto.dev)."""
    timeout_minutes: float = execution(30.0, ge=0)
    """Give up after so long without a step, a first batch or a start of workers; 0 waits for ever. A turn in a
    `queue` is waited for before."""
    queue_minutes: float = execution(1440.0, ge=0)
    """What counts instead while workers wait for CPUs or GPUs that other work on the cluster uses; 0 waits for ever."""

    @property
    def world_sizes(self) -> tuple[int, ...]:
        """Numbers of workers that may train, ascending: those of the range that share the batch evenly.

        A lost node must not end a run because what is left is an odd number: 7 of 8 go on as 4.
        """
        least, most = self.num_workers if isinstance(self.num_workers, tuple) else (self.num_workers,) * 2
        counts = range(least, min(most, self.batch_size) + 1)
        return tuple(count for count in counts if self.batch_size % (count * self.accumulate) == 0)

    @property
    def least_workers(self) -> int:
        """What a cluster must hold."""
        asked = self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]
        return self.world_sizes[0] if self.world_sizes else asked

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change while training goes on."""
        return len(self.world_sizes) > 1

    @property
    def rows_in_statistics(self) -> int:
        """Rows that share batch statistics."""
        return self.batch_size // self.accumulate // (1 if self.sync_batch_norm else self.least_workers)
