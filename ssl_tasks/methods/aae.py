"""Adversarial autoencoder: a discriminator draws the codes of the data towards a prior (arXiv 1511.05644).

pretrain: {method: {name: aae, prior_std: 1.0, feature_weight: 0.0}}
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from ssl_tasks.methods.adversarial import taken_for_real_loss, told_apart_loss
from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec, split_decay
from ssl_tasks.methods.byol import regression_loss
from ssl_tasks.methods.heads import decoder, mlp
from ssl_tasks.randomness import normal


class AAEConfig(MethodConfig):
    """The deterministic encoder of section 2; the discriminator is the paper's (appendix A)."""

    name: Literal["aae"]
    latent_dim: int = Field(64, ge=1)
    prior_std: float = Field(1.0, gt=0)
    """Standard deviation of the prior, a normal around 0."""
    discriminator_width: int = Field(1000, ge=1)
    """Units in each of the discriminator's two hidden layers."""
    feature_weight: float = Field(0.0, ge=0)
    """Of an extra term of the reconstruction: the features of the reconstruction are to be those of the input (as in
    Larsen et al., arXiv 1512.09300, but features of the encoder). Costs one more pass through the backbone."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""


def held(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)` with a gradient for `x` alone; norms take in no statistics."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    result: Tensor = functional_call(module, (weights, buffers), (x,))
    return result


class AAE(Method):
    """Backbone, linear code, decoder and discriminator; section 2's reconstruction phase goes by `main`.

    The encoder is moved twice in each step: to reconstruct, and as the generator, to have its codes taken for draws
    of the prior. Each has an optimizer of its own.
    """

    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    phases: ClassVar[tuple[str, ...]] = ("main", "discriminator", "generator")

    def __init__(self, config: AAEConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        width = config.discriminator_width
        self.code = nn.Linear(self.num_features, config.latent_dim)
        self.decoder = decoder(config.latent_dim, input_shape, config.decoder_width)
        self.discriminator = mlp(config.latent_dim, width, width, 1)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss` of the phase. `main` logs its squared error `reconstruction` (1 is as good as the train mean) and
        with a `feature_weight` the term `feature_distance`, 0 to 4; the discriminator how often it is right.
        """
        (x,) = batch.views
        if phase == "main":
            return self._reconstruct(x)
        if phase == "generator":
            return {"loss": taken_for_real_loss(held(self.discriminator, self.code(self.backbone(x))))}
        with torch.no_grad():
            codes = self.code(self.backbone(x))
        dtype = torch.promote_types(codes.dtype, torch.float32)
        prior = self.config.prior_std * normal(batch.keys, "aae.prior", codes.shape[1], dtype)
        of_prior, of_codes = self.discriminator(torch.cat([prior, codes.to(dtype)])).chunk(2)
        right = torch.cat([of_prior.detach() > 0, of_codes.detach() < 0])
        return {"loss": told_apart_loss(of_prior, of_codes), "accuracy": right.float().mean()}

    def _reconstruct(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        reconstruction = self.decoder(self.code(features))
        loss = squared_error(reconstruction, x)
        results = {"loss": loss, "reconstruction": loss.detach()}
        if self.config.feature_weight > 0:
            # neither scale nor weights of the features can serve it: features that tell nothing would be easiest
            distance = regression_loss(held(self.backbone, reconstruction.to(x.dtype)), features)
            results["loss"] = loss + self.config.feature_weight * distance
            results["feature_distance"] = distance.detach()
        return results

    def param_groups(self, phase: str) -> list[dict[str, Any]]:
        """Encoder and decoder; the discriminator; the encoder again, which decays with the reconstruction alone."""
        encoder = [self.backbone, self.code]
        owners: dict[str, list[nn.Module]] = {
            "main": [*encoder, self.decoder],
            "discriminator": [self.discriminator],
            "generator": [*encoder],
        }
        decay, plain = split_decay(named for owner in owners[phase] for named in owner.named_parameters())
        if phase == "generator":
            return [{"params": [*decay, *plain], "weight_decay": 0.0}]
        return [{"params": decay}, {"params": plain, "weight_decay": 0.0}]


SPEC = MethodSpec(
    name="aae",
    config=AAEConfig,
    method=AAE,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="Adversarial Autoencoders, arXiv 1511.05644",
)
