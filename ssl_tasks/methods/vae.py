"""Variational autoencoder: reconstruct from a noisy code that stays close to a standard normal (arXiv 1312.6114).

pretrain: {method: {name: vae, beta: 1.0}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import decoder
from ssl_tasks.randomness import normal


class VAEConfig(MethodConfig):
    """The decoder's distribution is a normal of variance 1 around the reconstruction, in normalized inputs."""

    name: Literal["vae"]
    beta: float = Field(1.0, ge=0)
    """Weight of the divergence: 1 is the bound on the likelihood, more gives independent units (beta-VAE, Higgins et
    al., ICLR 2017, equation 4), and less is a decoder of variance beta. Directions of the inputs in which they vary
    less than beta leave no trace in the code, so that tables want less than images."""
    latent_dim: int = Field(128, ge=1)
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""


def bound_terms(reconstruction: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Both terms of the negative bound (equation 10), in nats a row, averaged over rows.

    Args:
        reconstruction, x: (B, ...) of one shape.
        mean, log_variance: (B, D) of the code's distribution.

    Returns:
        Half the squared error, summed over entries: -log p(x | z) but for a constant; and the divergence from the
        standard normal, summed over units (appendix B). In float32 or wider.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    error = (reconstruction.to(dtype) - x.to(dtype)).square().flatten(1).sum(dim=1) / 2
    mean, log_variance = mean.to(dtype), log_variance.to(dtype)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
    return error.mean(), divergence.mean()


def reparametrized(mean: Tensor, log_variance: Tensor, keys: Tensor) -> Tensor:
    """A draw of the code, mean + std * noise (section 2.4), the noise from `keys` (B,); float32 or wider."""
    dtype = torch.promote_types(mean.dtype, torch.float32)
    noise = normal(keys, "vae.noise", mean.shape[1], dtype)
    return mean.to(dtype) + (log_variance.to(dtype) / 2).exp() * noise


class VAE(Method):
    """Backbone, linear mean and log variance, and decoder. What transfers is what the mean is computed from."""

    views: ClassVar[ViewSpec] = ViewSpec(("plain",))

    def __init__(self, config: VAEConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.num_entries = math.prod(input_shape)
        self.posterior = nn.Linear(self.num_features, 2 * config.latent_dim)
        self.decoder = decoder(config.latent_dim, input_shape, config.decoder_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the negative bound in nats an entry, so that learning rates suit inputs of any size (0.5 is as
        good as the train mean); `reconstruction` and `divergence`, its terms in nats a row, unweighted: a divergence
        near 0 tells that the code has collapsed.
        """
        (x,) = batch.views
        mean, log_variance = self.posterior(self.backbone(x)).chunk(2, dim=1)
        reconstruction = self.decoder(reparametrized(mean, log_variance, batch.keys))
        error, divergence = bound_terms(reconstruction, x, mean, log_variance)
        loss = (error + self.config.beta * divergence) / self.num_entries
        return {"loss": loss, "reconstruction": error.detach(), "divergence": divergence.detach()}


SPEC = MethodSpec(
    name="vae",
    config=VAEConfig,
    method=VAE,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="Auto-Encoding Variational Bayes, arXiv 1312.6114; beta-VAE, ICLR 2017",
)
