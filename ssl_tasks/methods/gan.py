"""DCGAN: tell images from a generator's; the discriminator's features transfer (arXiv 1511.06434, section 5).

pretrain: {method: {name: gan}, optimizer: {lr: 2.0e-4, betas: [0.5, 0.999]}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.adversarial import AdversarialMethod, confidence, taken_for_real_loss, told_apart_loss
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import ConvDecoder
from ssl_tasks.randomness import normal


class GANConfig(MethodConfig):
    """The paper trains with Adam, lr 2e-4 and beta1 0.5 (section 4): `pretrain.optimizer` says so, not the method."""

    name: Literal["gan"]
    latent_dim: int = Field(100, ge=1)
    generator_width: int = Field(64, ge=1)
    """Channels of the generator."""
    r1: float = Field(0.0, ge=0)
    """Weight gamma of the penalty on the discriminator's gradient at real images (arXiv 1801.04406 uses 10); it costs
    a second pass over them."""


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """|d logit / d image|^2 / 2 (arXiv 1801.04406, equation 9 with gamma 1), averaged over rows, differentiable.

    Args:
        logits: (B,) of `images`, each of its own image alone; images: (B, C, H, W) that require a gradient.
    """
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.to(torch.promote_types(slope.dtype, torch.float32)).square().flatten(1).sum(dim=1).mean() / 2


class GAN(AdversarialMethod):
    """Backbone and linear head as the discriminator, and a convolutional generator."""

    # the sample itself: the generator would learn to paint an augmentation's traces too
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    discriminating: ClassVar[tuple[str, ...]] = ("backbone", "head")

    def __init__(self, config: GANConfig, backbone: nn.Module, input_shape: tuple[int, int, int]) -> None:
        super().__init__(config, backbone, input_shape)
        self.head = nn.Linear(self.num_features, 1)
        self.generator = ConvDecoder(config.latent_dim, input_shape, config.generator_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`: 1.386 of the discriminator and 0.693 of the generator where neither is ahead."""
        (real,) = batch.views
        # other noise in each phase, as in algorithm 1 of arXiv 1406.2661
        noise = normal(batch.keys, f"gan.{phase}", self.config.latent_dim, real.dtype)
        if phase == "generator":
            return {"loss": taken_for_real_loss(self._judge(real, self.generator(noise))[1])}
        with torch.no_grad():
            fake = self.generator(noise)
        logits = self._judge(real, fake)
        output = {"loss": told_apart_loss(*logits), **confidence(*logits)}
        if self.config.r1 > 0:
            penalty = self._penalty(real)
            output |= {"loss": output["loss"] + self.config.r1 * penalty, "r1_penalty": penalty.detach()}
        return output

    def _judge(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        # In one pass: where a trunk begins with batch norm, which the paper leaves out of its discriminator's input
        # layer (section 3), fakes among themselves would lose what tells them from images, their level and contrast.
        # The running statistics are then those that images were seen with.
        real_logits, fake_logits = self._logits(torch.cat([real, fake])).chunk(2)
        return real_logits, fake_logits

    def _logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))[:, 0]
        return logits

    def _penalty(self, real: Tensor) -> Tensor:
        # By running statistics: a batch's own would make an image's logit depend on the others, where R1 is of a
        # function of one image (arXiv 1704.00028, section 4, on batch norm in a critic).
        was_training = self.backbone.training
        self.backbone.eval()
        images = real.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
            penalty = r1_penalty(self._logits(images), images)
        self.backbone.train(was_training)
        return penalty


SPEC = MethodSpec(
    name="gan",
    config=GANConfig,
    method=GAN,
    modalities=("image",),
    family="generative",
    paper="Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, "
    "arXiv 1511.06434",
)
