"""What the methods of images and captions share: both encoders into one space, and how often a text is found again."""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.backbones.text import TextEncoder
from ssl_tasks.methods.base import Batch, Method, MethodConfig, ViewSpec
from ssl_tasks.modalities.captions import TextShape
from ssl_tasks.training.collectives import gather_with_grad


class PairConfig(MethodConfig):
    """Of both encoders. CLIP's text encoder is 512 wide and 12 deep with 8 heads; this one suits small data."""

    out_dim: int = Field(512, ge=1)
    """Of the space that images and texts share."""
    text_width: int = Field(256, ge=1)
    text_depth: int = Field(4, ge=1)
    text_heads: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.text_width % self.text_heads:
            raise ValueError(f"text_heads: {self.text_heads} heads cannot share a text_width of {self.text_width}")
        return self


class Pairs(Method):
    """Backbone and text encoder, each with a linear projection."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment",))
    couples_batch: ClassVar[bool] = True

    def __init__(self, config: PairConfig, backbone: nn.Module, input_shape: tuple[int, ...], text: TextShape) -> None:
        """Args: text: of the captions' tokens."""
        super().__init__(config, backbone, input_shape)
        self.to_shared = nn.Linear(self.num_features, config.out_dim, bias=False)
        self.text_encoder = TextEncoder(text, config.text_width, config.text_depth, config.text_heads)
        self.text_to_shared = nn.Linear(config.text_width, config.out_dim, bias=False)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, out_dim) embeddings of the images and of their captions, not normalized."""
        assert batch.text is not None, "the feed brings captions to methods that need them"
        (view,) = batch.views
        return self.to_shared(self.backbone(view)), self.text_to_shared(self.text_encoder(batch.text))


@torch.no_grad()
def text_recall(images: Tensor, texts: Tensor, tokens: Tensor) -> Tensor:
    """() share of this rank's images for which the nearest of all ranks' texts reads as their own (recall@1).

    Args:
        images, texts: (B, D) embeddings, row i of both is one pair.
        tokens: (B, L); several images may have equal captions, any of which is right.
    """
    candidates = gather_with_grad(functional.normalize(texts, dim=1))
    nearest = (images @ candidates.T).argmax(dim=1)  # (B,); an image's length changes no order
    return (gather_with_grad(tokens)[nearest] == tokens).all(dim=1).float().mean()
