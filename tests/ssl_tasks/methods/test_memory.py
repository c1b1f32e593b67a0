"""What a loss holds at once, forward and backward: a few matrices of all pairs; and of a teacher's pass nothing."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests_ranks import tiny, tiny_batch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_tasks.methods import names, spec
from ssl_tasks.methods.barlow_twins import barlow_twins_loss
from ssl_tasks.methods.contrast import batch_info_nce
from ssl_tasks.methods.instance_discrimination import instance_softmax
from ssl_tasks.methods.moco import info_nce
from ssl_tasks.methods.simclr import nt_xent
from ssl_tasks.methods.sinkhorn import sinkhorn
from ssl_tasks.methods.teachers import Teacher
from ssl_tasks.methods.vicreg import vicreg_terms

MANY, FEW = 512, 4
A_FEW = 4.5
"""Matrices: the logits, what their softmax is kept as, their gradient, and one on the way."""


class Peak(TorchDispatchMode):
    """Counts the bytes that operators allocate while it is on, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.living[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.living = {key: entry for key, entry in self.living.items() if not entry[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.living.values()))
        return result


def directions(num_rows: int, width: int) -> Tensor:
    return functional.normalize(torch.randn(num_rows, width), dim=1).requires_grad_()


def matrices(loss: Callable[[], Tensor], numbers: int) -> float:
    """How many float32 matrices of so many numbers forward and backward hold at once."""
    with Peak() as peak:
        loss().backward()
    return peak.bytes / (4 * numbers)


def naive_nt_xent(z: Tensor) -> Tensor:
    """As papers write it, a matrix for each step."""
    others = (z @ z.T / 0.1).exp() * (1 - torch.eye(len(z)))
    share = others / others.sum(dim=1, keepdim=True)
    positive = torch.eye(len(z)).roll(len(z) // 2, dims=1)
    return -(positive * (share + 1e-12).log()).sum() / len(z)


def test_the_measure_sees_what_a_naive_loss_holds() -> None:
    assert matrices(lambda: naive_nt_xent(directions(2 * MANY, FEW)), (2 * MANY) ** 2) > A_FEW + 2


PAIRS: dict[str, tuple[Callable[[], Tensor], int]] = {
    "simclr": (lambda: nt_xent(directions(MANY, FEW), directions(MANY, FEW), 0.1)[0], (2 * MANY) ** 2),
    "batch_info_nce": (lambda: batch_info_nce(directions(MANY, FEW), directions(MANY, FEW), 0.1)[0], MANY**2),
    "moco": (
        lambda: info_nce(directions(MANY, FEW), directions(MANY, FEW), directions(4 * MANY, FEW).detach(), 0.1)[0],
        4 * MANY**2,
    ),
    "instance_discrimination": (
        lambda: instance_softmax(directions(MANY, FEW), directions(4 * MANY, FEW).detach(), torch.arange(MANY), 0.1)[0],
        4 * MANY**2,
    ),
    "barlow_twins": (lambda: barlow_twins_loss(directions(FEW, MANY), directions(FEW, MANY), 0.005)[0], MANY**2),
    "vicreg": (
        lambda: torch.stack([*vicreg_terms(directions(FEW, MANY), directions(FEW, MANY)).values()]).sum(),
        2 * MANY**2,  # a covariance for each view
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_losses_of_all_pairs_hold_a_few_such_matrices(name: str) -> None:
    assert 1 < matrices(*PAIRS[name]) <= A_FEW


def test_sinkhorn_holds_a_few_matrices_whatever_its_iterations() -> None:
    scores = directions(MANY, MANY).detach()
    with Peak() as peak:
        sinkhorn(scores, 0.05, 20)
    assert peak.bytes / (4 * MANY**2) <= A_FEW


TAUGHT = [name for name in names() if hasattr(sys.modules[spec(name).method.__module__], "Teacher")]


def test_these_have_teachers() -> None:
    assert {"byol", "dino", "ijepa", "moco", "moco_v3", "two_encoders"} <= set(TAUGHT)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_teachers_pass_keeps_nothing_for_a_gradient(name: str) -> None:
    method = tiny(spec(name))
    asked = []
    for module in method.modules():
        if isinstance(module, Teacher):
            assert not any(parameter.requires_grad for parameter in module.parameters())
            module.network.register_forward_hook(
                lambda _module, _inputs, output: asked.extend(
                    (torch.is_grad_enabled(), part.requires_grad)
                    for part in (output if isinstance(output, tuple) else (output,))
                )
            )
    method(tiny_batch(method), "main")["loss"].backward()
    assert asked
    assert set(asked) == {(False, False)}
