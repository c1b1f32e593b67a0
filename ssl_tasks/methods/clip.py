"""CLIP: of all captions of a batch an image finds its own, and a caption its image (arXiv 2103.00020).

ingest: {path: photos.csv, captions: true}
augment: {crop_scale: [0.5, 1], flip_probability: 0, jitter_probability: 0, gray_probability: 0}
pretrain: {method: clip}

A view must keep what captions speak of, such as colours: the paper's are random crops alone.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, MethodSpec
from ssl_tasks.methods.contrast import batch_info_nce
from ssl_tasks.methods.pairs import PairConfig, Pairs, text_recall
from ssl_tasks.modalities.captions import CAPTIONS, TextShape

MAX_SCALE = 100.0
"""Of the logits (section 2.5): larger ones made training unstable."""


class CLIPConfig(PairConfig):
    """The paper's temperature (section 2.5) and the width of its ViT-B/32's space (table 20)."""

    name: Literal["clip"]
    temperature: float = Field(0.07, ge=1 / MAX_SCALE)
    """At the start; it is learned, and stays above 0.01."""


def clip_loss(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric cross entropy over cosines (figure 3): the mean of image to text and text to image.

    This rank's rows are compared with all ranks' rows, so that the mean of the ranks' losses, and of their
    gradients, is the whole batch's. Holds two matrices of (B, N) logits for B of N rows.

    Args:
        images, texts: (B, D) embeddings of this rank's pairs, not normalized; every rank brings the same B.
        log_scale: () logarithm of what the cosines are multiplied with.

    Returns:
        In float32 or wider, log N at chance.
    """
    temperature = torch.exp(-log_scale)
    to_text, _ = batch_info_nce(images, texts, temperature)
    to_image, _ = batch_info_nce(texts, images, temperature)
    return (to_text + to_image) / 2


class CLIP(Pairs):
    """Both encoders and a learned temperature."""

    def __init__(self, config: CLIPConfig, backbone: nn.Module, input_shape: tuple[int, ...], text: TextShape) -> None:
        super().__init__(config, backbone, input_shape, text)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, `recall_at_1` of texts by images of the batch, and `logit_scale`."""
        images, texts = self.embed(batch)
        assert batch.text is not None
        return {
            "loss": clip_loss(images, texts, self.log_scale),
            "recall_at_1": text_recall(images, texts, batch.text),
            "logit_scale": self.log_scale.detach().exp(),
        }

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Keep the scale in bounds, as the paper does: clipped in `forward` it would lose its gradient there."""
        self.log_scale.clamp_(max=math.log(MAX_SCALE))


SPEC = MethodSpec(
    name="clip",
    config=CLIPConfig,
    method=CLIP,
    modalities=("image",),
    family="image and text",
    paper="Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020",
    needs=(CAPTIONS,),
)
