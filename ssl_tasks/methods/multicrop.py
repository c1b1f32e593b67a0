"""Multi-crop (SwAV, arXiv 2006.09882, section 3.2): two global views and small local ones that only learn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_tasks.methods.base import ViewSpec

NUM_GLOBAL = 2


def multi_crop(num_local: int) -> ViewSpec:
    """Two global views, then `num_local` local ones."""
    return ViewSpec(("augment",) * NUM_GLOBAL + ("local",) * num_local)


def embed_crops(network: nn.Module, views: list[Tensor]) -> Tensor:
    """(V, B, D) outputs of V views, global ones first; those of one size go through together, as in the papers' code.

    Args:
        network: (B, C, H, W) -> (B, D) for both sizes.
        views: V of (B, C, H, W); without local ones just the global.
    """
    sizes = (views[:NUM_GLOBAL], views[NUM_GLOBAL:])
    return torch.cat([network(torch.cat(same)).unflatten(0, (len(same), -1)) for same in sizes if same])


def across_views(targets: Tensor, logits: Tensor) -> Tensor:
    """Cross entropy of every global view's target with every other view's prediction, averaged over pairs and rows.

    Args:
        targets: (2, B, K) distributions of the global views.
        logits: (V, B, K) of all views, global ones first, already divided by their temperature.
    """
    log_p = torch.log_softmax(logits, dim=2)
    pairs = -torch.einsum("tbk,vbk->tv", targets, log_p) / targets.shape[1]  # (2, V)
    other = ~torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs[other].mean()
