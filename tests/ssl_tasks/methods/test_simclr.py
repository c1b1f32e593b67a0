"""NT-Xent against loops written from the paper; two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import TinyConv, rows
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.simclr import SPEC, SimCLRConfig, nt_xent
from ssl_tasks.training.collectives import CpuSyncBatchNorm, convert_sync_batchnorm, rank, world_size


def naive_nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of arXiv 2002.05709, pair by pair: rows 2k-1 and 2k are the views of image k."""
    z = [row for pair in zip(z1, z2, strict=True) for row in pair]

    def similarity(i: int, j: int) -> Tensor:
        return (z[i] * z[j]).sum() / (z[i].norm() * z[j].norm())

    def ell(i: int, j: int) -> Tensor:
        others = [torch.exp(similarity(i, k) / temperature) for k in range(len(z)) if k != i]
        return -torch.log(torch.exp(similarity(i, j) / temperature) / sum(others))

    return sum(ell(2 * k, 2 * k + 1) + ell(2 * k + 1, 2 * k) for k in range(len(z1))) / len(z)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_and_its_gradient_against_the_paper(temperature):
    ours = [rows(5, 3, seed=seed).requires_grad_() for seed in (0, 1)]
    naive = [z.detach().clone().requires_grad_() for z in ours]
    loss, _ = nt_xent(*ours, temperature)
    expected = naive_nt_xent(*naive, temperature)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(ours, naive, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_contrast_accuracy_counts_anchors_whose_positive_is_nearest():
    eye = torch.eye(4)
    assert nt_xent(eye, eye, 0.1)[1] == 1.0
    assert nt_xent(eye, eye.roll(1, 0), 0.1)[1] == 0.0


def test_bf16_projections_are_widened_before_the_softmax():
    z1, z2 = rows(64, 16, seed=0).bfloat16(), rows(64, 16, seed=1).bfloat16()
    loss, _ = nt_xent(z1, z2, 0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(nt_xent(z1.double(), z2.double(), 0.05)[0]), rel=1e-5)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("hidden_dim", 0), ("out_dim", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        SimCLRConfig(name="simclr", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def loss_and_gradients() -> dict[str, Tensor]:
    """Of this rank's rows of one batch, gradients averaged over ranks by DDP."""
    torch.manual_seed(0)
    method = SPEC.method(SimCLRConfig(name="simclr", out_dim=5, hidden_dim=7), TinyConv(), (2, 6, 6)).double()
    mine = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    views = [rows(8, 2, 6, 6, seed=seed)[mine] for seed in (1, 2)]
    batch = Batch(views, torch.arange(8)[mine], torch.arange(8)[mine])
    module = convert_sync_batchnorm(method, "cpu")
    if world_size() > 1:
        assert sum(isinstance(m, CpuSyncBatchNorm) for m in module.modules()) == 4
        module = DistributedDataParallel(module, broadcast_buffers=False)
    output = module(batch, "main")
    output["loss"].backward()
    results = {"loss": output["loss"].detach(), "accuracy": output["contrast_accuracy"].double()}
    results |= {f"grad {name}": p.grad for name, p in method.named_parameters()}
    return results | {f"buffer {name}": b for name, b in method.named_buffers()}


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    first, second = run_ranks(loss_and_gradients)
    for key, expected in loss_and_gradients().items():
        found = (first[key] + second[key]) / 2 if key in ("loss", "accuracy") else first[key]
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")
        if key not in ("loss", "accuracy"):
            assert torch.equal(first[key], second[key]), key
    assert not torch.equal(first["loss"], second["loss"])
