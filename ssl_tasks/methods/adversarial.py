"""What methods with a discriminator and a generator share: the losses and the two phases."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ssl_tasks.methods.base import Method, split_decay


def told_apart_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """-log D of positives - log(1 - D) of negatives (GAN, arXiv 1406.2661, equation 1), each averaged over rows.

    With the two swapped it is the non-saturating loss of those who want to be mistaken for each other.

    Args:
        positive, negative: (B,) logits of D.

    Returns:
        2 log 2 = 1.386 where D knows nothing, in float32 or wider.
    """
    return taken_for_real_loss(positive) + taken_for_real_loss(-negative)


def taken_for_real_loss(logits: Tensor) -> Tensor:
    """-log D (1406.2661, section 3), averaged over rows: log 2 where D knows nothing, and no vanishing gradient."""
    return functional.softplus(-_wide(logits)).mean()


def confidence(positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
    """Mean D of both kinds, to log: 0.5 each where D cannot tell them apart."""
    means = {"real_probability": positive, "fake_probability": negative}
    return {name: _wide(logits).detach().sigmoid().mean() for name, logits in means.items()}


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class AdversarialMethod(Method):
    """One step of the discriminator, then one of the generator, on each batch."""

    phases: ClassVar[tuple[str, ...]] = ("discriminator", "generator")
    discriminating: ClassVar[tuple[str, ...]]
    """Submodules that the phase `discriminator` moves; `generator` moves all others."""

    def param_groups(self, phase: str) -> list[dict[str, Any]]:
        """The phase's own parameters."""
        moved = [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if (name.partition(".")[0] in self.discriminating) == (phase == "discriminator")
        ]
        decay, plain = split_decay(moved)
        return [{"params": decay}, {"params": plain, "weight_decay": 0.0}]
