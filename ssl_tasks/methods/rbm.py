"""Restricted Boltzmann machine with gaussian inputs, by contrastive divergence (Hinton, Neural Computation 14, 2002;
"A practical guide", UTML TR 2010-003), with persistent chains (Tieleman, ICML 2008), also convolutional (Lee et al.,
ICML 2009).

pretrain: {backbone: "rbm:512", method: {name: rbm, persistent: true}}      # or "crbm:32x7" for images
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.backbones.energy import RBMBackbone
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, ViewSpec, length_from_checkpoint
from ssl_tasks.methods.noise import draw
from ssl_tasks.randomness import normal, uniform
from ssl_tasks.training.collectives import gather_with_grad, rank, world_size

NEEDS = "a backbone rbm:<hidden> or crbm:<filters>x<kernel>"


class RBMConfig(MethodConfig):
    """CD-1 as in the guide, section 5."""

    name: Literal["rbm"]
    gibbs_steps: int = Field(1, ge=1)
    """k of CD-k: how often hidden and visible units are drawn anew in a training step."""
    persistent: bool = False
    """Chains go on from step to step, one for each row of a batch, where otherwise they start at the batch's rows; they
    want a low learning rate."""


def free_energy(v: Tensor, drive: Tensor, visible_bias: Tensor) -> Tensor:
    """F(v) = -log sum_h exp(-E(v, h)) = |v - b|^2 / 2 - sum_j log(1 + exp(c_j + (v W)_j)), (B,).

    Args:
        v: (B, ...) inputs; drive: (B, ...), c + v W; visible_bias: b, broadcastable to v.
    """
    parabola = (v - visible_bias).square().flatten(1).sum(dim=1) / 2
    return parabola - functional.softplus(drive).flatten(1).sum(dim=1)


@torch.no_grad()
def gibbs(
    machine: RBMBackbone, visible_bias: Tensor, v: Tensor, keys: Tensor, num_steps: int, *, noise_free: bool
) -> Tensor:
    """`v` (B, ...) after so many turns: hidden units drawn given v, then v given them; all bits from `keys` (B,).

    Args:
        noise_free: v is its mean given the hidden units, without noise of deviation 1 (guide, section 13.2).
    """
    for step in range(num_steps):
        probability = machine.drive(v).sigmoid()
        u = draw(uniform, keys, f"rbm.hidden.{step}", probability[0].numel(), v.dtype).view(probability.shape)
        mean = visible_bias + machine.paint((u < probability).to(v.dtype))
        v = (
            mean
            if noise_free
            else mean + draw(normal, keys, f"rbm.visible.{step}", v[0].numel(), v.dtype).view(v.shape)
        )
    return v


class RBM(Method):
    """The backbone holds weights and hidden biases, the method visible biases and chains."""

    views: ClassVar[ViewSpec] = ViewSpec(("plain",))
    backbone: RBMBackbone
    chains: Tensor
    """(N, ...) where the persistent chains are, one for each row of a batch of all ranks; none before the first step,
    which starts them at its rows."""

    def __init__(self, config: RBMConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        if not isinstance(backbone, RBMBackbone):
            raise RequestError(
                "pretrain.backbone: method rbm trains a backbone of its own kind; set it to rbm:<hidden>, as in "
                "rbm:512, or for images crbm:<filters>x<kernel>, as in crbm:32x7"
            )
        self.bias_shape = backbone.visible_bias_shape
        self.visible_bias = nn.Parameter(torch.zeros(math.prod(self.bias_shape)))  # flat: no weight decay on biases
        self.register_buffer("chains", torch.empty(0, *input_shape))
        length_from_checkpoint(self, "chains")
        self.fresh: list[Tensor] = []
        """Where this rank's chains went in this step, a part of the batch each."""

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, free energy of the data less that of the chains' ends, whose gradient is CD's and whose value says
        little (guide, section 6: 0 when the model fits); and `reconstruction_error`, the mean squared error of
        the mean-field reconstruction: 1 is as good as the train mean.
        """
        (view,) = batch.views
        # free energies are sums over all units, and their difference is small: bf16 would leave nothing of it
        with torch.autocast(view.device.type, enabled=False):
            v = view.to(torch.promote_types(view.dtype, torch.float32))
            bias = self.visible_bias.view(self.bias_shape)
            persistent = self.config.persistent
            start = self._own_chains(len(v)).to(v.dtype) if persistent and len(self.chains) > 0 else v
            # a chain that goes on must be one of the model; a short one is steadier without noise
            end = gibbs(self.backbone, bias, start, batch.keys, self.config.gibbs_steps, noise_free=not persistent)
            if persistent:
                self.fresh = [*self.fresh, end]
            drive = self.backbone.drive(v)
            loss = (free_energy(v, drive, bias) - free_energy(end, self.backbone.drive(end), bias)).mean()
            with torch.no_grad():
                error = (bias + self.backbone.paint(drive.sigmoid()) - v).square().mean()
        return {"loss": loss, "reconstruction_error": error}

    def _own_chains(self, count: int) -> Tensor:
        """Those of this rank's next `count` rows: a batch may come in parts."""
        first = rank() * (len(self.chains) // world_size()) + sum(len(part) for part in self.fresh)
        return self.chains[(first + torch.arange(count, device=self.chains.device)) % len(self.chains)]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """All ranks' chains are where they went."""
        if self.fresh:
            self.chains = gather_with_grad(torch.cat(self.fresh)).to(self.chains)
            self.fresh = []


SPEC = MethodSpec(
    name="rbm",
    config=RBMConfig,
    method=RBM,
    modalities=("image", "tabular"),
    family="energy-based",
    paper="Training Products of Experts by Minimizing Contrastive Divergence, Neural Computation 14 (2002), 1771-1800; "
    "Convolutional Deep Belief Networks, ICML 2009",
    needs=(NEEDS,),
)
