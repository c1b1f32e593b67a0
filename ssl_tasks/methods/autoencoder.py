"""Autoencoder: reconstruct a sample from its features (Hinton and Salakhutdinov, Science 313, 2006).

pretrain: {method: {name: autoencoder, code_dim: 32}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import decoder


class AutoencoderConfig(MethodConfig):
    """The network of all layers at once, without the paper's layerwise start."""

    name: Literal["autoencoder"]
    code_dim: int | None = Field(None, ge=1)
    """Of a linear bottleneck between features and decoder, as the paper's code layer; none where not set. Rows with
    fewer columns than there are features want one: the network can else learn to copy them."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""


def squared_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Squared error of (B, ...), averaged over a row's entries, then over rows; in float32 or wider."""
    dtype = torch.promote_types(target.dtype, torch.float32)
    return (reconstruction.to(dtype) - target.to(dtype)).square().mean()


class Autoencoder(Method):
    """Backbone, bottleneck where asked for, and decoder."""

    # The sample itself: what an augmentation policy does to it would be one more thing to reconstruct.
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))

    def __init__(self, config: AutoencoderConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        width = config.code_dim or self.num_features
        self.bottleneck = nn.Linear(self.num_features, width) if config.code_dim else nn.Identity()
        self.decoder = decoder(width, input_shape, config.decoder_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the mean squared error: 1 is as good as the train mean."""
        (x,) = batch.views
        return {"loss": squared_error(self.decoder(self.bottleneck(self.backbone(x))), x)}


SPEC = MethodSpec(
    name="autoencoder",
    config=AutoencoderConfig,
    method=Autoencoder,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="Reducing the Dimensionality of Data with Neural Networks, Science 313 (2006), 504-507",
)
