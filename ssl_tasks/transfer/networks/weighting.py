"""What the losses of several targets count for in their sum: as much as each other, by uncertainty, or by gradients.

weighting = make("uncertainty", ["classification", "regression"], alpha=1.5)
weighting(losses_T, known_T, shared).backward()
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_tasks.transfer.networks.adamw import AdamW
from ssl_tasks.transfer.targets import REGRESSION

WEIGHT_RATE = 0.025
"""Learning rate of GradNorm's weights, which begin at 1 and have as many steps as the network."""
LEAST = 1e-3
"""Weight that a target keeps under GradNorm."""


class Weighting(nn.Module):
    """All losses count for one: their sum over the targets that a batch has."""

    def forward(self, losses_T: Tensor, known_T: Sequence[bool], shared: Tensor) -> Tensor:
        """What to minimize.

        Args:
            losses_T: of the batch, 0 for a target that no row of it has.
            known_T: whether a row has it.
            shared: the weights of the last layer that all targets share.
        """
        return losses_T.sum()

    def current(self, losses: int) -> list[float]:
        """What each loss counts for now."""
        return [1.0] * losses


def uncertainty(losses_T: Tensor, log_variances_T: Tensor, factors_T: Tensor) -> Tensor:
    """(T,) factor * loss / variance + log(variance) / 2, equations 7 and 10 of the paper of `Uncertainty`.

    Args:
        factors_T: 1/2 for a squared error, 1 for a cross-entropy.
    """
    return factors_T * losses_T * torch.exp(-log_variances_T) + log_variances_T / 2


class Uncertainty(Weighting):
    """Each loss is divided by its noise's variance, which is learnt beside the network.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics"
    (arXiv 1705.07115, section 3.2); log variances are learnt, as there.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(len(names)))
        self.factors: Tensor
        self.register_buffer("factors", torch.tensor([0.5 if name == REGRESSION else 1.0 for name in names]))

    def forward(self, losses_T: Tensor, known_T: Sequence[bool], shared: Tensor) -> Tensor:
        """See `Weighting`."""
        return uncertainty(losses_T, self.log_variances, self.factors)[torch.tensor(known_T)].sum()

    def current(self, losses: int) -> list[float]:
        """See `Weighting`."""
        found: list[float] = (self.factors * torch.exp(-self.log_variances.detach())).tolist()
        return found


def grad_norm(weights_T: Tensor, norms_T: Tensor, losses_T: Tensor, initial_T: Tensor, alpha: float) -> Tensor:
    """(T,) the gradient of GradNorm's loss by the weights, equation 2 of the paper of `GradNorm`.

    The loss is the sum over targets of |w g - mean(w g) r^alpha|, where the second term counts as constant, and r is
    how slowly a target is learnt: its share of its first loss, over the mean share.

    Args:
        norms_T: g, of the gradients of the unweighted losses by the shared weights.
        initial_T: the losses at the first step.
    """
    weighted = weights_T * norms_T
    shares = losses_T / initial_T
    wanted = weighted.mean() * (shares / shares.mean()) ** alpha
    return torch.sign(weighted - wanted) * norms_T


class GradNorm(Weighting):
    """Weights under which all targets pull equally hard at the last shared layer, and those that lag behind harder.

    Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks" (arXiv
    1711.02257, algorithm 1). They sum to the number of targets. A batch that lacks a target leaves them as they are.
    """

    def __init__(self, names: Sequence[str], alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.weights: Tensor
        self.register_buffer("weights", torch.ones(len(names)))
        self.initial: Tensor | None = None
        self.optimizer: AdamW | None = None

    def forward(self, losses_T: Tensor, known_T: Sequence[bool], shared: Tensor) -> Tensor:
        """See `Weighting`; the weights are moved after they were used."""
        total = (self.weights.clone() * losses_T).sum()
        if all(known_T):
            norms = [torch.autograd.grad(loss, shared, retain_graph=True)[0].norm() for loss in losses_T]
            self._move(torch.stack(norms), losses_T.detach())
        return total

    @torch.no_grad()
    def _move(self, norms_T: Tensor, losses_T: Tensor) -> None:
        if self.initial is None or self.optimizer is None:
            self.initial = losses_T.clamp(min=torch.finfo(losses_T.dtype).tiny)
            self.leaf = nn.Parameter(self.weights.clone())
            self.optimizer = AdamW([self.leaf], weight_decay=0.0)
        self.leaf.grad = grad_norm(self.leaf, norms_T, losses_T, self.initial, self.alpha)
        self.optimizer.step(WEIGHT_RATE)
        self.leaf.clamp_(min=LEAST).mul_(len(self.leaf) / self.leaf.sum())
        self.weights.copy_(self.leaf)

    def current(self, losses: int) -> list[float]:
        """See `Weighting`."""
        found: list[float] = self.weights.tolist()
        return found


def make(name: str, targets: Sequence[str], alpha: float) -> Weighting:
    """The weighting that `transfer.multi_task.weighting` names, for losses of these targets in this order."""
    if name == "uncertainty":
        return Uncertainty(targets)
    return GradNorm(targets, alpha) if name == "grad_norm" else Weighting()
