"""The contrastive loss whose candidates are the rows of the batch, on all ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ssl_tasks.training.collectives import gather_with_grad, rank


def batch_info_nce(anchors: Tensor, keys: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """-log of the share of an anchor's own key among all ranks' keys, by exp(cosine / temperature) (InfoNCE).

    Args:
        anchors, keys: (B, D) of this rank's rows, row i of both belongs together; every rank brings the same B.
        temperature: a number, or () where it is learned.

    Returns:
        The mean loss over this rank's anchors, in float32 or wider, log N for N rows on all ranks at chance; and the
        share of anchors whose own key is the nearest of all.
    """
    # bf16 has too few digits for a sum over thousands of exponentials
    with torch.autocast(anchors.device.type, enabled=False):
        dtype = torch.promote_types(anchors.dtype, torch.float32)
        candidates = gather_with_grad(functional.normalize(keys.to(dtype), dim=1))  # (N, D)
        logits = functional.normalize(anchors.to(dtype), dim=1) @ candidates.T / temperature  # (B, N)
        own = len(anchors) * rank() + torch.arange(len(anchors), device=anchors.device)
        return functional.cross_entropy(logits, own), (logits.detach().argmax(dim=1) == own).float().mean()
