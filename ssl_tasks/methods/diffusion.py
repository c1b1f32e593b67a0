"""Denoising diffusion: say which noise was laid over an image (DDPM, arXiv 2006.11239; its features, 2303.09769).

What transfers is the backbone on clean images, step t = 0: it is never told t.

pretrain: {method: {name: diffusion, schedule: cosine, max_step: 0.3}}
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import ConvDecoder, mlp
from ssl_tasks.methods.noise import draw
from ssl_tasks.randomness import normal, uniform

COSINE_OFFSET = 0.008
LARGEST_BETA = 0.999


class DiffusionConfig(MethodConfig):
    """Defaults of DDPM, section 4; inputs have unit variance here and are not scaled to [-1, 1]."""

    name: Literal["diffusion"]
    schedule: Literal["linear", "cosine"] = "linear"
    """`cosine` (arXiv 2102.09672) destroys small images more slowly."""
    num_steps: int = Field(1000, ge=1)
    max_step: float = Field(1.0, gt=0, le=1)
    """Share of the steps that are trained on, from the clean end: features are best where noise is low (2303.09769),
    and beyond it an image shows hardly more than its layout."""
    decoder_width: int = Field(64, ge=2, multiple_of=2)
    """Channels of the decoder, and half of its embedding of t."""

    @model_validator(mode="after")
    def _has_steps(self) -> Self:
        if self.num_steps * self.max_step < 1 - 1e-9:
            raise ValueError(f"max_step: {self.max_step} of {self.num_steps} steps is not one whole step")
        return self


def signal_shares(schedule: str, num_steps: int) -> Tensor:
    """alpha-bar of steps 1 to T, (T,) float64: the share of the clean image's variance that is left.

    linear: the product of 1 - beta, beta from 1e-4 to 0.02 (DDPM, section 4); for T other than 1000 beta is scaled
    by 1000 / T, which leaves as little at the end. cosine: equation 17 of arXiv 2102.09672, beta at most 0.999.
    """
    if schedule == "linear":
        beta = torch.linspace(1e-4, 0.02, num_steps, dtype=torch.float64) * (1000 / num_steps)
    else:
        t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        f = torch.cos((t + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2).square()
        beta = 1 - f[1:] / f[:-1]
    return torch.cumprod(1 - beta.clamp(max=LARGEST_BETA), dim=0)


def add_noise(clean: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """sqrt(share) clean + sqrt(1 - share) noise (DDPM, equation 4); clean, noise (B, C, H, W), share (B,)."""
    share = share.view(-1, 1, 1, 1)
    return share.sqrt() * clean + (1 - share).sqrt() * noise


def noise_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the predicted noise (DDPM, equation 14), mean over entries, then rows: 1 for predicting 0."""
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return (predicted.to(dtype) - noise.to(dtype)).square().flatten(1).mean(dim=1).mean()


def embed_steps(steps: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Sines and cosines of t at `width` / 2 frequencies from 1 to 1 / 10,000 (arXiv 1706.03762, section 3.5).

    Args:
        steps: (B,) int64; width: even.

    Returns:
        (B, width), the sines first.
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float64, device=steps.device) / max(1, half - 1)
    angle = steps[:, None] * torch.exp(-math.log(10_000) * exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(dtype)


class NoiseDecoder(nn.Module):
    """(features (B, num_features), noisy (B, C, H, W), steps (B,)) -> noise (B, C, H, W).

    A pooled vector cannot hold the noise of every pixel, so the noisy image comes in a second time, on a short path:
    three 3x3 convolutions, which see 7 x 7 pixels. What is further away, all that an image shows, is known from the
    features alone. t scales and shifts every channel (FiLM, arXiv 1709.07871). No norms: they would tell the short path
    of the whole image.
    """

    NUM_BLOCKS = 2

    def __init__(self, num_features: int, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, *sides = image_shape
        self.width = width
        self.from_features = ConvDecoder(num_features, (width, sides[0], sides[1]), width)
        self.from_noisy = nn.Conv2d(channels, width, 3, padding=1)
        self.from_step = mlp(width, 2 * width, self.NUM_BLOCKS * 2 * width)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(self.NUM_BLOCKS))
        self.to_noise = nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor, noisy: Tensor, steps: Tensor) -> Tensor:
        """The predicted noise."""
        x_BCHW: Tensor = self.from_features(features) + self.from_noisy(noisy)
        films = self.from_step(embed_steps(steps, self.width, noisy.dtype))[:, :, None, None]
        scales, shifts = films.chunk(2, dim=1)
        scales, shifts = scales.chunk(self.NUM_BLOCKS, dim=1), shifts.chunk(self.NUM_BLOCKS, dim=1)
        for conv, scale, shift in zip(self.convs, scales, shifts, strict=True):
            x_BCHW = x_BCHW + functional.relu(conv(x_BCHW) * (1 + scale) + shift)
        noise: Tensor = self.to_noise(x_BCHW)
        return noise


class Diffusion(Method):
    """Backbone on the noisy image, and a decoder from its pooled features."""

    # the sample itself: an augmentation's colours and blur would be one more thing to tell from noise
    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    shares: Tensor
    """(T,) float64, alpha-bar of each step; not in checkpoints, since the config says it."""

    def __init__(self, config: DiffusionConfig, backbone: nn.Module, input_shape: tuple[int, int, int]) -> None:
        super().__init__(config, backbone, input_shape)
        self.last_step = math.floor(config.max_step * config.num_steps + 1e-9)
        self.decoder = NoiseDecoder(self.num_features, input_shape, config.decoder_width)
        self.register_buffer("shares", signal_shares(config.schedule, config.num_steps), persistent=False)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the mean squared error of the predicted noise: 1 is as good as predicting none."""
        (clean,) = batch.views
        u = uniform(batch.keys, "diffusion.step", 1, torch.float64)[:, 0]
        steps = 1 + (u * self.last_step).long()  # (B,), evenly from 1 to the last
        noise = draw(normal, batch.keys, "diffusion.noise", clean[0].numel(), clean.dtype).view(clean.shape)
        noisy = add_noise(clean, noise, self.shares[steps - 1].to(clean.dtype))
        return {"loss": noise_loss(self.decoder(self.backbone(noisy), noisy, steps), noise)}


SPEC = MethodSpec(
    name="diffusion",
    config=DiffusionConfig,
    method=Diffusion,
    modalities=("image",),
    family="generative",
    paper="Denoising Diffusion Probabilistic Models, arXiv 2006.11239; Denoising Diffusion Autoencoders are Unified "
    "Self-supervised Learners, arXiv 2303.09769",
)
