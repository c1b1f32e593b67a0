"""MoCo v2: a view finds its other view, seen by a momentum encoder, among a queue of earlier ones
(arXiv 1911.05722 and 2003.04297).

pretrain: {method: {name: moco, queue_size: 4096}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import (
    Batch,
    Method,
    MethodConfig,
    MethodSpec,
    TrainStats,
    ViewSpec,
    length_from_checkpoint,
    refuse_partial_queue,
)
from ssl_tasks.methods.heads import mlp
from ssl_tasks.methods.teachers import Teacher
from ssl_tasks.randomness import normal, row_keys
from ssl_tasks.training.collectives import gather_with_grad

QUEUE_SIZE = 65536


class MoCoConfig(MethodConfig):
    """Defaults of v2 (arXiv 2003.04297, section 3)."""

    name: Literal["moco"]
    temperature: float = Field(0.2, gt=0)
    momentum: float = Field(0.999, ge=0, lt=1)
    """Of the key encoder; runs of few steps want a lower one."""
    queue_size: int | None = Field(None, ge=1)
    """Keys that are kept as negatives: the paper's 65,536 where not set, but no more than half the train rows, since
    an image's own old keys would be among them."""
    out_dim: int = Field(128, ge=1)


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """-log of the share that a query's own key has among it and the queue (equation 1), averaged over queries.

    Args:
        queries, keys: (B, D), l2-normalized, in float32 or wider; row i of both is one image.
        queue: (K, D), l2-normalized negatives.

    Returns:
        The loss, and the share of queries whose own key is nearer than all of the queue.
    """
    with torch.autocast(queries.device.type, enabled=False):
        own = (queries * keys).sum(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([own, queries @ queue.T], dim=1) / temperature  # (B, 1 + K)
        first = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        return functional.cross_entropy(logits, first), (logits.detach().argmax(dim=1) == 0).float().mean()


class MoCo(Method):
    """Backbone and head for queries, their momentum encoder for keys, and the queue."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    queue: Tensor
    """(K, out_dim) l2-normalized keys, a ring; random before it is full."""
    place: Tensor
    """() int64, where the next keys go."""

    def __init__(self, config: MoCoConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.head = mlp(self.num_features, self.num_features, config.out_dim)
        self.key_encoder = Teacher(nn.Sequential(self.backbone, self.head))
        self.register_buffer("queue", torch.empty(0, config.out_dim))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        length_from_checkpoint(self, "queue")
        self.fresh: list[Tensor] = []
        """Keys of this step, not yet in the queue."""

    @classmethod
    def check(cls, config: MoCoConfig, batch_size: int, num_rows: int | None = None) -> list[str]:
        """The queue takes in whole batches, and should not go round all images."""
        refuse_partial_queue(config.queue_size, batch_size)
        if config.queue_size and num_rows is not None and config.queue_size >= num_rows:
            return [
                f"pretrain.method.queue_size: {config.queue_size} keys of {num_rows} train rows, so that an image's "
                "own earlier keys are among its negatives; half the rows or fewer are better"
            ]
        return []

    def prepare(self, stats: TrainStats) -> None:
        """Fill the queue with random directions."""
        size = self.config.queue_size or max(1, min(QUEUE_SIZE, stats.num_rows // 2))
        random = normal(row_keys(0, 0, torch.arange(size)), "moco.queue", self.config.out_dim)
        self.queue = functional.normalize(random.to(self.queue), dim=1)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, and `contrast_accuracy`: how often the own key is nearer than the whole queue."""
        first, second = batch.views
        queries, keys = self.head(self.backbone(first)), self.key_encoder(second)
        dtype = torch.promote_types(queries.dtype, torch.float32)
        queries, keys = (functional.normalize(z.to(dtype), dim=1) for z in (queries, keys))
        self.fresh = [*self.fresh, keys]
        loss, accuracy = info_nce(queries, keys, self.queue.to(dtype), self.config.temperature)
        return {"loss": loss, "contrast_accuracy": accuracy}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The key encoder follows, and all ranks' keys take the place of the oldest ones."""
        self.key_encoder.follow(nn.Sequential(self.backbone, self.head), self.config.momentum)
        keys = gather_with_grad(torch.cat(self.fresh))[-len(self.queue) :].to(self.queue)
        where = (self.place + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[where] = keys
        self.place = (self.place + len(keys)) % len(self.queue)
        self.fresh = []


SPEC = MethodSpec(
    name="moco",
    config=MoCoConfig,
    method=MoCo,
    modalities=("image",),
    family="contrastive",
    paper="Improved Baselines with Momentum Contrastive Learning, arXiv 2003.04297",
)
