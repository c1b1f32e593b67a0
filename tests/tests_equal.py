"""Trainings that must not depend on the number of workers: a contrastive, two teacher-student and a masked method.

Float32 under SGD follows float64's curve to the last bits that sums in another order leave; learning rates are those at
which such bits do not grow (batch norm over few pixels and layer norm of black patches amplify them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests_loop import make_job, train

SGD = {"name": "sgd", "lr": 0.002, "momentum": 0.0}
CONV = {"backbone": "test_resnet", "batch_size": 64}
VIT = {"backbone": "test_vit", "stem": "standard", "size": 32, "batch_size": 32}
BYOL = {"name": "byol", "hidden_dim": 32, "out_dim": 16}
DINO = {"name": "dino", "num_local": 0, "out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8}
MAE = {"name": "mae", "decoder_dim": 32, "decoder_depth": 1}


@dataclass(frozen=True)
class Case:
    """One training and how closely its loss curves must agree."""

    method: str
    precision: str
    norms: str
    """Of the backbone and head: `batch`, synchronized, or none over the batch."""
    tolerance: float
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.precision} {self.norms}"


CASES = {
    case.name: case
    for case in (
        Case("simclr", "fp64", "batch", 1e-8, {**CONV, "method": "simclr"}),
        Case("byol", "fp64", "batch", 1e-8, {**CONV, "method": BYOL}),
        Case("dino", "fp64", "layer", 1e-8, {**VIT, "method": DINO}),
        Case("mae", "fp64", "layer", 1e-8, {**VIT, "method": MAE}),
        Case(
            "simclr", "fp32", "layer", 1e-4,
            {**VIT, "method": {"name": "simclr", "temperature": 0.5}, "optimizer": {**SGD, "lr": 0.001}},
        ),
        Case("dino", "fp32", "layer", 1e-4, {**VIT, "method": DINO, "optimizer": {**SGD, "lr": 0.0005}}),
        Case("mae", "fp32", "layer", 1e-4, {**VIT, "method": MAE, "optimizer": SGD}),
        Case(
            "simclr", "fp32", "batch", 1e-3,
            {**CONV, "batch_size": 256, "method": {"name": "simclr", "temperature": 0.5}, "optimizer": SGD},
        ),
        Case(
            "byol", "fp32", "batch", 1e-3,
            {**CONV, "batch_size": 256, "method": BYOL, "optimizer": {**SGD, "lr": 0.0005}},
        ),
    )
}  # fmt: skip


def losses(name: str, steps: int) -> list[float]:
    """The loss of each step, in this process or, where it is a rank, together with the others."""
    case = CASES[name]
    found: list[float] = train(make_job(**case.options, precision=case.precision, max_steps=steps)).history["loss"]
    return found
