"""SimSiam: two views predict each other; a stopped gradient alone prevents collapse (arXiv 2011.10566).

pretrain: {method: {name: simsiam}, optimizer: {name: sgd, lr: 0.05}}
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.methods.base import CONSTANT_RATE, Batch, Method, MethodConfig, MethodSpec, ViewSpec, split_decay
from ssl_tasks.methods.heads import bn_mlp, projection_std


class SimSiamConfig(MethodConfig):
    """Defaults of the paper, section 3."""

    name: Literal["simsiam"]
    out_dim: int = Field(2048, ge=1)
    """Of the projector, all three layers."""
    predictor_dim: int = Field(512, ge=1)
    """The predictor's hidden layer: a bottleneck (appendix B)."""
    stop_gradient: bool = True
    """Without it the projections collapse (section 4.1, figure 2): for demonstration."""


def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """-cos of rows (equation 1), averaged over rows: between -1 and 1, in float32 or wider.

    Args:
        predicted, target: (B, D); detach what takes no gradient.
    """
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return -functional.cosine_similarity(predicted.to(dtype), target.to(dtype), dim=1).mean()


class SimSiam(Method):
    """Backbone, projector and predictor."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment", "augment"))
    least_rows: ClassVar[int] = 3

    def __init__(self, config: SimSiamConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        width = config.out_dim
        # the last norm without weight and bias, as in the paper's code
        self.projector = bn_mlp(self.num_features, width, width, width, last="plain norm")
        self.predictor = bn_mlp(width, config.predictor_dim, width)

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the mean of both directions (equation 2), 0 at chance, -1 where views agree; and `projection_std`."""
        first, second = (self.projector(self.backbone(view)) for view in batch.views)
        targets = (second.detach(), first.detach()) if self.config.stop_gradient else (second, first)
        predicted = (self.predictor(first), self.predictor(second))
        losses = [negative_cosine(p, z) for p, z in zip(predicted, targets, strict=True)]
        return {"loss": torch.stack(losses).mean(), "projection_std": projection_std(torch.cat([first, second]))}

    def param_groups(self, phase: str) -> list[dict[str, Any]]:
        """The predictor keeps its learning rate: it should adapt to the latest features (appendix B)."""
        predictor = split_decay(self.predictor.named_parameters())
        inside = {id(parameter) for part in predictor for parameter in part}
        rest = split_decay((name, p) for name, p in self.named_parameters() if id(p) not in inside)
        return [
            {"params": rest[0]},
            {"params": rest[1], "weight_decay": 0.0},
            {"params": predictor[0], CONSTANT_RATE: True},
            {"params": predictor[1], CONSTANT_RATE: True, "weight_decay": 0.0},
        ]


SPEC = MethodSpec(
    name="simsiam",
    config=SimSiamConfig,
    method=SimSiam,
    modalities=("image",),
    family="siamese without negatives",
    paper="Exploring Simple Siamese Representation Learning, arXiv 2011.10566",
)
