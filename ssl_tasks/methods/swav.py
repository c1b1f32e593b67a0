"""SwAV: predict a view's code, its assignment to prototypes, from another view (arXiv 2006.09882).

pretrain: {method: {name: swav, num_prototypes: 300, num_local: 6}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec, refuse_partial_queue
from ssl_tasks.methods.heads import bn_mlp, held
from ssl_tasks.methods.multicrop import NUM_GLOBAL, across_views, embed_crops, multi_crop
from ssl_tasks.methods.sinkhorn import sinkhorn
from ssl_tasks.training.collectives import gather_with_grad, my_columns


class SwAVConfig(MethodConfig):
    """Defaults of the paper, section 4 and appendix A."""

    name: Literal["swav"]
    num_local: int = Field(6, ge=0)
    """Small crops (the policy `local`), which predict codes and have none."""
    num_prototypes: int = Field(3000, ge=2)
    """About three times as many as ImageNet has classes; few rows want fewer."""
    temperature: float = Field(0.1, gt=0)
    epsilon: float = Field(0.05, gt=0)
    """How even a code is over prototypes; too high, and all codes are the same (section 3.1)."""
    iterations: int = Field(3, ge=1)
    hidden_dim: int = Field(2048, ge=1)
    out_dim: int = Field(128, ge=1)
    freeze_prototypes: float = Field(0.01, ge=0, lt=1)
    """Share of the steps before the prototypes start to learn."""
    queue_size: int = Field(0, ge=0)
    """Earlier rows that are assigned with the batch, for batches much smaller than `num_prototypes`; the paper has
    3,840 for 256 images."""
    queue_start: float = Field(0.075, ge=0, lt=1)
    """Share of the steps after which the queue fills: features must have settled (the paper's epoch 15 of 200)."""


def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Cross entropy of global views' codes with the other views' predictions (equations 1, 2 and 6), a mean.

    Args:
        scores: (V, B, K), cosines of V views with the prototypes, the global views first; in float32 or wider.
        codes: (2, B, K) of the global views, without gradient.
    """
    return across_views(codes, scores / temperature)


class SwAV(Method):
    """Backbone, projection head and prototypes."""

    views: ClassVar[ViewSpec] = multi_crop(6)
    couples_batch: ClassVar[bool] = True
    least_rows: ClassVar[int] = 2
    queue: Tensor
    """(2, queue_size, out_dim) l2-normalized projections of the global views of earlier rows, the newest first."""
    num_queued: Tensor
    """() int64, how many of them are rows by now; the queue counts once it is full."""
    progress: Tensor
    """() share of the training that is done."""

    def __init__(self, config: SwAVConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.projector = bn_mlp(self.num_features, config.hidden_dim, config.out_dim)
        self.prototypes = nn.Parameter(functional.normalize(torch.randn(config.num_prototypes, config.out_dim), dim=1))
        self.register_buffer("queue", torch.zeros(NUM_GLOBAL, config.queue_size, config.out_dim))
        self.register_buffer("num_queued", torch.zeros((), dtype=torch.int64))
        self.register_buffer("progress", torch.zeros(()))
        self.fresh = torch.empty(0)
        """(2, B, out_dim) of this step, not yet in the queue."""

    @classmethod
    def views_for(cls, config: SwAVConfig) -> ViewSpec:
        """Two global views and the local ones."""
        return multi_crop(config.num_local)

    @classmethod
    def check(cls, config: SwAVConfig, batch_size: int, num_rows: int | None = None) -> list[str]:
        """The queue takes in whole batches; rows that are shared out should not be fewer than the prototypes."""
        refuse_partial_queue(config.queue_size, batch_size)
        if batch_size + config.queue_size >= config.num_prototypes:
            return []
        return [
            f"pretrain.method.num_prototypes: {batch_size + config.queue_size} rows are shared out evenly among "
            f"{config.num_prototypes} prototypes, less than a row for each; use fewer, or a longer queue_size"
        ]

    def chance(self) -> dict[str, float]:
        """Codes that are the same for all images."""
        return {"loss": math.log(self.config.num_prototypes)}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`: log `num_prototypes` at chance."""
        z = embed_crops(nn.Sequential(self.backbone, self.projector), batch.views)
        with torch.autocast(z.device.type, enabled=False):
            z = functional.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=2)
            prototypes = held(self.prototypes, self.progress >= self.config.freeze_prototypes).to(z.dtype)
            scores = z @ prototypes.T
            self.fresh = z[:NUM_GLOBAL].detach()
            codes = torch.stack([self._codes(scores[view], view) for view in range(NUM_GLOBAL)])
            return {"loss": swapped_prediction(scores, codes, self.config.temperature)}

    @torch.no_grad()
    def _codes(self, scores: Tensor, view: int) -> Tensor:
        """(B, K) of the batch's rows, assigned together with this rank's share of the queue."""
        queued = scores[:0]
        if self.config.queue_size and int(self.num_queued) == self.config.queue_size:
            queued = self.queue[view, my_columns(self.config.queue_size)].to(scores) @ self.prototypes.to(scores).T
        codes = sinkhorn(torch.cat([scores, queued]), self.config.epsilon, self.config.iterations)
        return codes[: len(scores)]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prototypes go back to unit length, and the queue takes in all ranks' rows."""
        self.prototypes.copy_(functional.normalize(self.prototypes, dim=1))
        if self.config.queue_size and progress >= self.config.queue_start:
            rows = gather_with_grad(self.fresh.transpose(0, 1)).transpose(0, 1).to(self.queue)
            self.queue = torch.cat([rows, self.queue], dim=1)[:, : self.config.queue_size]
            self.num_queued.add_(rows.shape[1]).clamp_(max=self.config.queue_size)
        self.progress.fill_(progress)


SPEC = MethodSpec(
    name="swav",
    config=SwAVConfig,
    method=SwAV,
    modalities=("image",),
    family="clustering",
    paper="Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv 2006.09882",
)
