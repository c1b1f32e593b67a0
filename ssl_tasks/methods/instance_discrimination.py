"""Instance discrimination: tell every image from all others by a memory of what each looked like (arXiv 1805.01978).

pretrain: {method: {name: instance_discrimination, temperature: 0.07}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, TrainStats, ViewSpec, length_from_checkpoint
from ssl_tasks.methods.pieces import integers
from ssl_tasks.randomness import normal, row_keys
from ssl_tasks.training.collectives import gather_with_grad

FULL_SOFTMAX_ROWS = 65_536
"""Train rows up to which the softmax runs over all of them; above, noise-contrastive estimation stands for it."""
MAX_NUMBERS = 1 << 24
"""Of gathered bank entries at once: 256 rows with 4096 negatives of 128 numbers would be 512 MiB."""


class InstanceDiscriminationConfig(MethodConfig):
    """Defaults of the paper, sections 3 and 4."""

    name: Literal["instance_discrimination"]
    temperature: float = Field(0.07, gt=0)
    out_dim: int = Field(128, ge=1)
    momentum: float = Field(0.5, ge=0, lt=1)
    """Share of a bank entry that stays when its image is seen again."""
    proximal_weight: float = Field(10.0, ge=0)
    """Of the squared distance to the image's own bank entry (equation 10), which calms an objective with one sample a
    class; figure 3 compares 0, 10, 30 and 50."""
    num_negatives: int = Field(4096, ge=1)
    """Noise samples of each row (m), where there are more than 65,536 train rows."""


def instance_softmax(z: Tensor, bank: Tensor, index: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """-log of the image's own share among all of the bank (equations 2 and 3), averaged over rows.

    Args:
        z: (B, D), l2-normalized; bank: (N, D), l2-normalized, without gradient; index: (B,) own entries.

    Returns:
        The loss, and the share of rows whose own entry is the nearest.
    """
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ bank.T / temperature  # (B, N)
        return functional.cross_entropy(logits, index), (logits.detach().argmax(dim=1) == index).float().mean()


def instance_nce(
    z: Tensor, bank: Tensor, index: Tensor, noise: Tensor, temperature: float, normalizer: Tensor
) -> tuple[Tensor, Tensor]:
    """Noise-contrastive estimation of the same (equations 4 to 7), averaged over rows.

    P(i|v) = exp(v f_i / temperature) / Z and h = P / (P + m / N): the loss is -log h of the own entry and the sum of
    -log (1 - h) over the noise.

    Args:
        z: (B, D); bank: (N, D); index: (B,), as in `instance_softmax`.
        noise: (B, m), entries drawn uniformly from the bank for each row.
        normalizer: (), the constant Z (equation 8).
    """
    num_rows, num_noise = len(bank), noise.shape[1]
    with torch.autocast(z.device.type, enabled=False):
        chosen = torch.cat([index[:, None], noise], dim=1)  # (B, 1 + m)
        rows = max(1, MAX_NUMBERS // (chosen.shape[1] * bank.shape[1]))
        # what was gathered is gathered again in backward instead of kept
        scores = torch.cat(
            [
                checkpoint(_scores, part, bank, entries, use_reentrant=False)
                for part, entries in zip(torch.split(z, rows), torch.split(chosen, rows), strict=True)
            ]
        )
        # log (P / (m / N)): h is its sigmoid
        odds = scores / temperature - torch.log(normalizer * num_noise / num_rows)
        loss = functional.softplus(-odds[:, 0]) + functional.softplus(odds[:, 1:]).sum(dim=1)
        nearest = (scores.detach()[:, :1] >= scores.detach()[:, 1:]).all(dim=1)
        return loss.mean(), nearest.float().mean()


def _scores(z: Tensor, bank: Tensor, entries: Tensor) -> Tensor:
    """(B, K) products of each row of `z` (B, D) with its `entries` (B, K) of the bank."""
    return torch.einsum("bd,bkd->bk", z, bank[entries])


class InstanceDiscrimination(Method):
    """Backbone, a linear head, and the memory bank."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment",))
    bank: Tensor
    """(N, out_dim) l2-normalized, one entry for each train row in payload order; random before its first step."""
    positions: Tensor
    """(N,) int64, the entries' positions in the payload, ascending."""
    normalizer: Tensor
    """() float32, Z of the estimation."""

    def __init__(self, config: InstanceDiscriminationConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.head = nn.Linear(self.num_features, config.out_dim)
        self.register_buffer("bank", torch.empty(0, config.out_dim))
        self.register_buffer("positions", torch.empty(0, dtype=torch.int64))
        self.register_buffer("normalizer", torch.ones(()))
        length_from_checkpoint(self, "bank")
        length_from_checkpoint(self, "positions")
        self.fresh: list[tuple[Tensor, Tensor]] = []
        """Entry numbers and vectors of this step, not yet in the bank."""

    def prepare(self, stats: TrainStats) -> None:
        """Fill the bank with random directions and estimate Z.

        The paper takes Z from the first batches, whose features meet a bank of random directions: for every one of
        them that is N times the mean of exp(cos / temperature), which one direction against the bank gives as well.
        """
        self.positions = stats.positions
        random = normal(
            row_keys(0, 0, torch.arange(1 + stats.num_rows)), "instance_discrimination.bank", self.config.out_dim
        )
        directions = functional.normalize(random.to(self.bank), dim=1)
        self.bank = directions[1:].clone()
        self.normalizer = stats.num_rows * (self.bank @ directions[0] / self.config.temperature).exp().mean()

    def chance(self) -> dict[str, float]:
        """Of all train rows; noise-contrastive estimation has no such value."""
        return {"loss": math.log(len(self.bank))} if len(self.bank) <= FULL_SOFTMAX_ROWS else {}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`; `instance_accuracy`, how often the own entry is the nearest; `proximity`, the squared distance."""
        (view,) = batch.views
        z = self.head(self.backbone(view))
        dtype = torch.promote_types(z.dtype, torch.float32)
        z, bank = functional.normalize(z.to(dtype), dim=1), self.bank.to(dtype)
        index = torch.searchsorted(self.positions, batch.positions)
        self.fresh = [*self.fresh, (index, z.detach())]
        if len(bank) <= FULL_SOFTMAX_ROWS:
            loss, accuracy = instance_softmax(z, bank, index, self.config.temperature)
        else:
            noise = integers(batch.keys, "instance_discrimination.noise", self.config.num_negatives, len(bank))
            normalizer = self.normalizer.to(dtype)
            loss, accuracy = instance_nce(z, bank, index, noise, self.config.temperature, normalizer)
        proximity = (z - bank[index]).square().sum(dim=1).mean()
        loss = loss + self.config.proximal_weight * proximity
        return {"loss": loss, "instance_accuracy": accuracy, "proximity": proximity.detach()}

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """All ranks' rows move their entries towards what they are now."""
        index = gather_with_grad(torch.cat([index for index, _ in self.fresh]))
        z = gather_with_grad(torch.cat([z for _, z in self.fresh])).to(self.bank)
        self.bank[index] = functional.normalize(self.bank[index].lerp(z, 1.0 - self.config.momentum), dim=1)
        self.fresh = []


SPEC = MethodSpec(
    name="instance_discrimination",
    config=InstanceDiscriminationConfig,
    method=InstanceDiscrimination,
    modalities=("image",),
    family="contrastive",
    paper="Unsupervised Feature Learning via Non-Parametric Instance-level Discrimination, arXiv 1805.01978",
)
