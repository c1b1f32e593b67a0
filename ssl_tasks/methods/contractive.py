"""Contractive autoencoder: reconstruct from features that hardly move with the input (Rifai et al., ICML 2011).

pretrain: {method: {name: contractive, weight: 0.1}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec
from ssl_tasks.methods.heads import decoder
from ssl_tasks.methods.second_order import twice_differentiable
from ssl_tasks.randomness import uniform


class ContractiveConfig(MethodConfig):
    """The paper chooses its weight on validation data; 0.1 is of the order that it reports."""

    name: Literal["contractive"]
    weight: float = Field(0.1, ge=0)
    """Of the penalty; `lambda` in the paper, whose sums over entries and features are means here."""
    num_projections: int = Field(1, ge=1)
    """Random projections of a row's code in each step; each costs one more pass backward through the backbone."""
    decoder_width: int = Field(64, ge=1)
    """Channels of the convolutional decoder, or units of the hidden layer of a table's."""


def jacobian_penalty(code: Tensor, x: Tensor, signs: Tensor) -> Tensor:
    """Squared Frobenius norm of the Jacobian of `code` by `x` (equation 1), over rows and features, estimated.

    E |v^T J|^2 = |J|^2 for independent signs v (Hutchinson, 1990), so one pass backward for each v is enough. The
    Jacobian is the whole batch's: where batch norm couples rows, what they owe to each other is in it.

    Args:
        code: (B, D), computed from `x`.
        x: (B, ...), which takes a gradient.
        signs: (B, P, D) of -1 and 1: P projections.

    Returns:
        The mean over rows and features of the squared norm of a feature's gradient, in float32 or wider.
    """
    norms = []
    for v in signs.unbind(dim=1):
        (gradient,) = torch.autograd.grad((code * v.to(code.dtype)).sum(), x, create_graph=True)
        norms.append(gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum() / code.numel())
    return torch.stack(norms).mean()


class Contractive(Method):
    """Backbone, standardization, decoder and the penalty.

    Penalty and decoder see features that are standardized over the batch. The paper ties the decoder's weights to
    the encoder's; where they are free, features could shrink and the decoder grow, and the penalty would vanish
    without any contraction.
    """

    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    least_rows: ClassVar[int] = 3
    shards: ClassVar[bool] = False

    def __init__(self, config: ContractiveConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.standardize = nn.BatchNorm1d(self.num_features, affine=False)
        self.decoder = decoder(self.num_features, input_shape, config.decoder_width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`; the squared error `reconstruction` (1 is as good as the train mean), and `penalty` unweighted."""
        x = batch.views[0].detach().requires_grad_()
        with twice_differentiable(self):
            code = self.standardize(self.backbone(x))
        shape = (len(x), self.config.num_projections, self.num_features)
        u = uniform(batch.keys, "contractive.signs", shape[1] * shape[2])
        penalty = jacobian_penalty(code, x, torch.where(u < 0.5, -1.0, 1.0).view(shape))
        error = squared_error(self.decoder(code), x.detach())
        loss = error + self.config.weight * penalty
        return {"loss": loss, "reconstruction": error.detach(), "penalty": penalty.detach()}


SPEC = MethodSpec(
    name="contractive",
    config=ContractiveConfig,
    method=Contractive,
    modalities=("image", "tabular"),
    family="reconstruction",
    paper="Contractive Auto-Encoders: Explicit Invariance During Feature Extraction, ICML 2011",
)
