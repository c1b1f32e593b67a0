"""Sinkhorn and Knopp's equal shares (Cuturi, arXiv 1306.0895), as SwAV assigns rows to prototypes with them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_tasks.training.collectives import gather_with_grad


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Assign all ranks' rows to prototypes in equal shares (SwAV, arXiv 2006.09882, equation 5 and listing A.1).

    exp(scores / epsilon) with its columns, over all ranks' rows, and its rows scaled in turn, each to the same sum; in
    logarithms, so that a small epsilon does not overflow. Every rank takes part and gets what one would.

    Args:
        scores: (B, K) in float32 or wider; ranks may bring different B, of at least 1.
        epsilon: low assigns each row to one prototype, high to all alike.

    Returns:
        (B, K), each row a distribution.
    """
    log_q = scores / epsilon
    for _ in range(iterations):
        totals = torch.logsumexp(gather_with_grad(torch.logsumexp(log_q, dim=0, keepdim=True)), dim=0)
        log_q = log_q - totals
        log_q = log_q - torch.logsumexp(log_q, dim=1, keepdim=True)
    return log_q.exp()
