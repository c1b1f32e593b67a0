"""SigLIP: of every image and every caption of a batch, say whether they belong together (arXiv 2303.15343).

ingest: {path: photos.csv, captions: true}
augment: {crop_scale: [0.5, 1], flip_probability: 0, jitter_probability: 0, gray_probability: 0}
pretrain: {method: siglip}

A view must keep what captions speak of, such as colours.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import Batch, MethodSpec
from ssl_tasks.methods.pairs import PairConfig, Pairs, text_recall
from ssl_tasks.modalities.captions import CAPTIONS, TextShape
from ssl_tasks.training.collectives import gather_with_grad, rank


class SigLIPConfig(PairConfig):
    """The paper's start (section 3.2): most pairs do not belong together, and the bias says so."""

    name: Literal["siglip"]
    temperature: float = Field(0.1, gt=0)
    """At the start; it is learned."""
    bias: float = -10.0
    """Of the logits at the start; it is learned."""


def siglip_loss(images: Tensor, texts: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """-1/N sum_ij log sigmoid(z_ij (exp(log_scale) x_i . y_j + bias)), z_ii = 1 and -1 elsewhere (algorithm 1).

    This rank's images meet all ranks' texts, so that the mean of the ranks' losses, and of their gradients, is the
    whole batch's. Holds a few (B, N) matrices for B of N rows.

    Args:
        images, texts: (B, D) embeddings of this rank's pairs, not normalized; every rank brings the same B.
        log_scale, bias: ().

    Returns:
        In float32 or wider.
    """
    # bf16 has too few digits for a sum over thousands of pairs
    with torch.autocast(images.device.type, enabled=False):
        dtype = torch.promote_types(images.dtype, torch.float32)
        candidates = gather_with_grad(functional.normalize(texts.to(dtype), dim=1))  # (N, D)
        logits = functional.normalize(images.to(dtype), dim=1) @ candidates.T * log_scale.exp() + bias  # (B, N)
        own = len(images) * rank() + torch.arange(len(images), device=images.device)
        belongs = torch.zeros_like(logits).scatter_(1, own[:, None], 1.0)
        return functional.binary_cross_entropy_with_logits(logits, belongs, reduction="sum") / len(images)


class SigLIP(Pairs):
    """Both encoders, a learned temperature and bias."""

    def __init__(
        self, config: SigLIPConfig, backbone: nn.Module, input_shape: tuple[int, ...], text: TextShape
    ) -> None:
        super().__init__(config, backbone, input_shape, text)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.bias = nn.Parameter(torch.tensor(config.bias))

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, `recall_at_1` of texts by images of the batch, `logit_scale` and `logit_bias`."""
        images, texts = self.embed(batch)
        assert batch.text is not None
        return {
            "loss": siglip_loss(images, texts, self.log_scale, self.bias),
            "recall_at_1": text_recall(images, texts, batch.text),
            "logit_scale": self.log_scale.detach().exp(),
            "logit_bias": self.bias.detach().clone(),
        }


SPEC = MethodSpec(
    name="siglip",
    config=SigLIPConfig,
    method=SigLIP,
    modalities=("image",),
    family="image and text",
    paper="Sigmoid Loss for Language Image Pre-Training, arXiv 2303.15343",
    needs=(CAPTIONS,),
)
