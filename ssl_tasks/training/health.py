"""Is the representation alive? Measures that need no labels, a kNN probe, and a watchdog that stops a dead run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ssl_tasks.errors import StageError

LAST = 20
"""One in so many steps are the end of a training."""
NEARLY = 0.99
"""Share of the value of guessing from which on nothing is said to be learned."""


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """Mean standard deviation of l2-normalized features (N, D), times sqrt(D) (SimSiam, arXiv 2011.10566, figure 2).

    1 where directions fill the sphere evenly, 0 where all rows point the same way.
    """
    directions = functional.normalize(features.double(), dim=1)
    return float(directions.std(dim=0, correction=0).mean() * math.sqrt(features.shape[1]))


@torch.no_grad()
def rankme(features: Tensor, epsilon: float = 1e-7) -> float:
    """Effective rank of features (N, D): exp of the entropy of the singular values (RankMe, arXiv 2210.02885, eq. 1).

    Between 1 (one direction) and min(N, D). 0 where every feature is 0, NaN where one is not finite. Costs
    O(N D min(N, D)): pass a few thousand rows.
    """
    if not torch.isfinite(features).all():
        return math.nan
    sigma = torch.linalg.svdvals(features.double())
    total = sigma.sum()
    if total == 0:
        return 0.0
    share = sigma / total + epsilon
    return float(torch.exp(-(share * share.log()).sum()))


@torch.no_grad()
def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of l2-normalized features of two views of each sample (arXiv 2005.10242, eq. 2, alpha 2).

    Args:
        first, second: (N, D), row i of both is one sample. 0 where views make no difference, 4 at most.
    """
    a, b = (functional.normalize(features.double(), dim=1) for features in (first, second))
    return float((a - b).square().sum(dim=1).mean())


@torch.no_grad()
def uniformity(features: Tensor, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential of all pairs of l2-normalized features (N, D) (arXiv 2005.10242, eq. 3).

    0 where all point the same way; -2 t at best, for directions at right angles and more on average.
    """
    directions = functional.normalize(features.double(), dim=1)
    return float(torch.pdist(directions).square().mul(-t).exp().mean().log())


@torch.no_grad()
def knn_accuracy(features: Tensor, labels: Tensor, k: int = 10, temperature: float = 0.07) -> float:
    """Leave-one-out accuracy of a weighted k-nearest-neighbour vote (Wu et al., arXiv 1805.01978, section 3.4).

    Args:
        features: (N, D); neighbours are found by cosine similarity.
        labels: (N,) int64 class numbers from 0.
        k: neighbours that vote, at most N - 1, each with weight exp(similarity / temperature).
    """
    directions = functional.normalize(features.double(), dim=1)
    num_rows, num_classes = len(labels), int(labels.max()) + 1
    correct = 0
    for start in range(0, num_rows, 1024):  # 1,024 rows of similarities at a time, not N x N
        rows = torch.arange(start, min(start + 1024, num_rows), device=labels.device)
        similarity = directions[rows] @ directions.T
        similarity[torch.arange(len(rows)), rows] = -math.inf
        nearest, index = similarity.topk(min(k, num_rows - 1), dim=1)
        votes = torch.zeros(len(rows), num_classes, dtype=nearest.dtype, device=nearest.device)
        votes.scatter_add_(1, labels[index], torch.exp(nearest / temperature))
        correct += int((votes.argmax(dim=1) == labels[rows]).sum())
    return correct / num_rows


def guesses(history: Mapping[str, Sequence[float]], chance: Mapping[str, float]) -> list[str]:
    """What to tell where training ended at the value of guessing, or so near it that no feature can come of it.

    Args:
        history: values over steps of what the method logs.
        chance: of some of them, see `Method.chance`.
    """
    found = []
    for name, value in chance.items():
        ended = statistics.fmean(history[name][-max(1, len(history[name]) // LAST) :])
        if ended >= NEARLY * value:
            found.append(
                f"{name} ended at {ended:.3f}, where guessing is ({value:.3f}): the method learned nothing. Train "
                "longer, lower pretrain.optimizer.lr, or give it the options that few rows ask for "
                "(ssl_tasks/methods/README.md)"
            )
    return found


@dataclass
class Watchdog:
    """Stops a run whose loss is no number or whose features have collapsed."""

    min_feature_std: float = 0.01
    """Below it all rows point the same way to about half a degree; untrained ResNets on digits measure 0.05 to 0.15."""
    min_rankme: float = 1.05
    patience: int = 3
    """Checks in a row that must look collapsed: early in training one may."""
    num_bad: int = 0
    """Bad checks so far, in a row; belongs into a checkpoint, for a resumed run to stop at the same step."""
    min_projection_std: float = 0.4
    """Below it projections of any two images have a cosine above 0.84 on average. Far from 0, because SimSiam's last
    norm leaves 2 / sqrt(B) even where all images but one agree: without its stopped gradient it measured 0.2 to 0.4 on
    digits."""
    num_bad_projections: int = 0
    """As `num_bad`, of the projections."""

    def check_loss(self, step: int, loss: float) -> None:
        """Call with the loss of a step.

        Raises:
            StageError: the loss is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise StageError(
                f"pretrain: the loss is {loss} at step {step}. Lower pretrain.optimizer.lr, lengthen the warm-up, "
                "set a gradient clip, or use pretrain.precision=fp32"
            )

    def check_features(self, step: int, std: float, rank: float) -> None:
        """Call with `feature_std` and `rankme` at every health check.

        Raises:
            StageError: the features are not finite, or looked collapsed in `patience` checks in a row.
        """
        if not (math.isfinite(std) and math.isfinite(rank)):
            raise StageError(f"pretrain: the features hold NaN or infinity at step {step}. Lower pretrain.optimizer.lr")
        collapsed = std < self.min_feature_std or rank < self.min_rankme
        self.num_bad = self.num_bad + 1 if collapsed else 0
        if self.num_bad >= self.patience:
            raise StageError(
                f"pretrain: the representation has collapsed at step {step} (feature std {std:.4f}, RankMe {rank:.2f}, "
                f"{self.num_bad} checks in a row). Lower pretrain.optimizer.lr, enlarge the batch, "
                "or raise the method's temperature"
            )

    def check_projections(self, step: int, std: float) -> None:
        """Call at every health check with the last step's `projection_std`, where the method has one.

        Raises:
            StageError: it looked collapsed in `patience` checks in a row.
        """
        self.num_bad_projections = self.num_bad_projections + 1 if std < self.min_projection_std else 0
        if self.num_bad_projections >= self.patience:
            raise StageError(
                f"pretrain: the projections have collapsed at step {step} (projection_std {std:.4f} is below "
                f"{self.min_projection_std:g}, {self.num_bad_projections} checks in a row): all images get one. Keep "
                "the method's stop_gradient, predictor and momentum at their defaults, or lower pretrain.optimizer.lr"
            )
