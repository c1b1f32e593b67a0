"""Sparse autoencoder: reconstruct from a code whose units are rarely active (Ng, CS294A lecture notes, 2011).

pretrain: {method: {name: sparse_autoencoder, penalty: kl, rho: 0.05, beta: 3}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import decoder
from ssl_tasks.training.collectives import gather_with_grad

BETA = {"kl": 3.0, "l1": 0.1}
EPSILON = 1e-6


class SparseAutoencoderConfig(MethodConfig):
    """Defaults of the notes and their exercise; error and penalty are means here where the notes have sums."""

    name: Literal["sparse_autoencoder"]
    penalty: Literal["kl", "l1"] = "kl"
    """`kl` holds each unit's mean activation over a batch at `rho`; `l1` makes each row use few units."""
    rho: float = Field(0.05, gt=0, lt=1)
    """Target of `kl`."""
    beta: float | None = Field(None, ge=0)
    """Weight of the penalty; where not set 3 for `kl`, as in the notes, and 0.1 for `l1`."""
    hidden_dim: int | None = Field(None, ge=1)
    """Units of the code; as many as features where not set."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""


def kl_penalty(code: Tensor, rho: float) -> Tensor:
    """KL(rho || mean activation) of Bernoulli variables (CS294A, section 3), averaged over units.

    The mean is over all ranks' rows, so every rank has the whole batch's penalty.

    Args:
        code: (B, D) in (0, 1); every rank brings the same B.

    Returns:
        In float32 or wider; 0 where every unit's mean is `rho`.
    """
    # bf16 has too few digits for a mean over thousands of rows
    with torch.autocast(code.device.type, enabled=False):
        local = code.to(torch.promote_types(code.dtype, torch.float32)).mean(dim=0, keepdim=True)
        mean = gather_with_grad(local).mean(dim=0).clamp(EPSILON, 1 - EPSILON)
        return (rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()).mean()


def unit_rms(code: Tensor) -> Tensor:
    """Rows of (B, D) scaled to a mean square of 1, in float32 or wider."""
    code = code.to(torch.promote_types(code.dtype, torch.float32))
    return code / (code.square().mean(dim=1, keepdim=True) + EPSILON).sqrt()


class SparseAutoencoder(Method):
    """Backbone, code and decoder.

    The code is sigmoid(linear layer of the features): features behind a ReLU have sigmoids of 0.5 and more, out of
    any target's reach. For `l1` its rows are scaled to a mean square of 1, for penalty and decoder alike: else the
    code could shrink and the decoder grow without any sparsity. The mean of |code| is then 1 where all units are
    equally active and 1 / sqrt(D) where one is.
    """

    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    couples_batch: ClassVar[bool] = True

    def __init__(self, config: SparseAutoencoderConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        width = config.hidden_dim or self.num_features
        self.beta = BETA[config.penalty] if config.beta is None else config.beta
        self.hidden = nn.Linear(self.num_features, width)
        self.decoder = decoder(width, input_shape, config.decoder_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`; the squared error `reconstruction` (1 is as good as the train mean), and `penalty` unweighted."""
        (x,) = batch.views
        code = self.hidden(self.backbone(x)).sigmoid()
        if self.config.penalty == "kl":
            penalty = kl_penalty(code, self.config.rho)
        else:
            code = unit_rms(code)
            penalty = code.abs().mean()
        error = squared_error(self.decoder(code), x)
        return {"loss": error + self.beta * penalty, "reconstruction": error.detach(), "penalty": penalty.detach()}


SPEC = MethodSpec(
    name="sparse_autoencoder",
    config=SparseAutoencoderConfig,
    method=SparseAutoencoder,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="Sparse autoencoder, CS294A lecture notes, Stanford University (2011)",
)
