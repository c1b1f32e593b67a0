"""BiGAN: an encoder and a generator whose pairs (image, code) cannot be told apart (arXiv 1605.09782; ALI, 1606.00704).

pretrain: {method: {name: bigan}, optimizer: {lr: 2.0e-4, betas: [0.5, 0.999]}}
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.adversarial import AdversarialMethod, confidence, told_apart_loss
from ssl_tasks.methods.base import Batch, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import ConvDecoder
from ssl_tasks.randomness import uniform


class BiGANConfig(MethodConfig):
    """The paper trains with Adam, lr 2e-4 and beta1 0.5 (appendix C): `pretrain.optimizer` says so, not the method."""

    name: Literal["bigan"]
    latent_dim: int = Field(50, ge=1)
    """Numbers of a code, evenly from [-1, 1]: 50 for small images, 200 for ImageNet (section 4)."""
    generator_width: int = Field(64, ge=1)
    """Channels of the generator."""
    discriminator_width: int = Field(64, ge=1)
    """Channels of the discriminator's first convolution; they double with each until they are eight times as many."""
    hidden_dim: int = Field(512, ge=1)
    """Of the discriminator's layer that sees image and code together."""


class JointDiscriminator(nn.Module):
    """(images (B, C, H, W), codes (B, latent_dim)) -> logits (B,) of being an image and its code.

    Convolutions of stride 2 down to at most `END` pixels a side. No norms: pairs of one kind, normalized among
    themselves, would lose their level.
    """

    END = 4

    def __init__(self, input_shape: tuple[int, int, int], latent_dim: int, width: int, hidden_dim: int) -> None:
        super().__init__()
        channels, height, rest = input_shape
        widths = [channels]
        while max(height, rest) > self.END or len(widths) == 1:
            widths.append(width * min(8, 2 ** (len(widths) - 1)))
            height, rest = (height + 1) // 2, (rest + 1) // 2
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise(widths):
            layers += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.on_image = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * height * rest, hidden_dim))
        self.on_code = nn.Linear(latent_dim, hidden_dim, bias=False)
        self.on_both = nn.Sequential(
            nn.LeakyReLU(0.2), nn.Linear(hidden_dim, hidden_dim), nn.LeakyReLU(0.2), nn.Linear(hidden_dim, 1)
        )

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.on_both(self.on_image(images) + self.on_code(codes))[:, 0]
        return logits


class BiGAN(AdversarialMethod):
    """Backbone and linear layer as the encoder, a generator, and the discriminator of their pairs."""

    # the sample itself: the generator would learn to paint an augmentation's traces too
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    discriminating: ClassVar[tuple[str, ...]] = ("discriminator",)

    def __init__(self, config: BiGANConfig, backbone: nn.Module, input_shape: tuple[int, int, int]) -> None:
        super().__init__(config, backbone, input_shape)
        self.to_code = nn.Linear(self.num_features, config.latent_dim)
        self.generator = ConvDecoder(config.latent_dim, input_shape, config.generator_width)
        self.discriminator = JointDiscriminator(
            input_shape, config.latent_dim, config.discriminator_width, config.hidden_dim
        )

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`: 1.386 in both phases where neither side is ahead (equation 3; for encoder and generator with the
        labels swapped, section 3.4).
        """
        (real,) = batch.views
        # other codes in each phase, as in algorithm 1 of arXiv 1406.2661
        codes = 2 * uniform(batch.keys, f"bigan.{phase}", self.config.latent_dim, real.dtype) - 1
        with torch.set_grad_enabled(phase == "generator" and torch.is_grad_enabled()):
            encoded, fake = self.to_code(self.backbone(real)), self.generator(codes)
        real_logits, fake_logits = self.discriminator(real, encoded), self.discriminator(fake, codes)
        if phase == "generator":
            return {"loss": told_apart_loss(fake_logits, real_logits)}
        return {"loss": told_apart_loss(real_logits, fake_logits), **confidence(real_logits, fake_logits)}


SPEC = MethodSpec(
    name="bigan",
    config=BiGANConfig,
    method=BiGAN,
    modalities=("image",),
    family="generative",
    paper="Adversarial Feature Learning, arXiv 1605.09782; Adversarially Learned Inference, arXiv 1606.00704",
)
