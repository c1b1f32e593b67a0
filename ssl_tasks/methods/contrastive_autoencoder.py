"""Contrastive autoencoder: features of two views agree against all others, and hold what reconstructs each view.

pretrain: {method: {name: contrastive_autoencoder, weight: 1.0, temperature: 0.1}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.dae import corrupt
from ssl_tasks.methods.heads import bn_mlp, decoder
from ssl_tasks.methods.simclr import nt_xent
from ssl_tasks.randomness import mix, stream_key


class ContrastiveAutoencoderConfig(MethodConfig):
    """Both terms weigh the same, as in SubTab; temperature and head are SimCLR's."""

    name: Literal["contrastive_autoencoder"]
    weight: float = Field(1.0, ge=0)
    """Of the contrast; the reconstruction weighs 1."""
    temperature: float = Field(0.1, gt=0)
    mask_rate: float = Field(0.25, ge=0, lt=1)
    """Of tables, whose rows have no augmentation: share of entries that are masked in each view."""
    hidden_dim: int | None = Field(None, ge=1)
    """Of the projection head; as wide as the features where not set."""
    out_dim: int = Field(128, ge=1)
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""


def masked_views(views: list[Tensor], keys: Tensor, mask_rate: float) -> list[Tensor]:
    """Rows (B, D) of each view with entries masked, in each view others, drawn from `keys` (B,) alone."""
    streams = [mix(keys + stream_key(f"contrastive_autoencoder.view {number}")) for number in range(len(views))]
    return [corrupt(view, stream, mask_rate, 0.0)[0] for view, stream in zip(views, streams, strict=True)]


class ContrastiveAutoencoder(Method):
    """Backbone, decoder from the features, and projection head with NT-Xent beside it.

    A view of an image is reconstructed as it is, and a masked row of a table as it was.
    """

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    couples_batch: ClassVar[bool] = True
    least_rows: ClassVar[int] = 2

    def __init__(self, config: ContrastiveAutoencoderConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.tables = len(input_shape) == 1
        self.head = bn_mlp(self.num_features, config.hidden_dim or self.num_features, config.out_dim, last="norm")
        self.decoder = decoder(self.num_features, input_shape, config.decoder_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`; its terms `reconstruction` (1 is as good as the train mean) and `contrast`, unweighted; and
        `contrast_accuracy`, how often the other view is the nearest of all candidates.
        """
        config, views = self.config, batch.views
        features = self.backbone(torch.cat(masked_views(views, batch.keys, config.mask_rate) if self.tables else views))
        z1, z2 = self.head(features).chunk(2)
        contrast, accuracy = nt_xent(z1, z2, config.temperature)
        error = squared_error(self.decoder(features), torch.cat(views))
        return {
            "loss": error + config.weight * contrast,
            "reconstruction": error.detach(),
            "contrast": contrast.detach(),
            "contrast_accuracy": accuracy,
        }


SPEC = MethodSpec(
    name="contrastive_autoencoder",
    config=ContrastiveAutoencoderConfig,
    method=ContrastiveAutoencoder,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="NT-Xent of arXiv 2002.05709 beside a reconstruction, as in SubTab, arXiv 2110.04361",
)
