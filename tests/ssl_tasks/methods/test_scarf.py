"""InfoNCE and the corruption of SCARF against loops written from the paper; two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, TrainStats
from ssl_tasks.methods.scarf import SPEC, ScarfConfig, corrupt, info_nce
from ssl_tasks.randomness import row_keys
from ssl_tasks.training.collectives import rank, world_size


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_info_nce(z: Tensor, corrupted: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of arXiv 2106.15147, pair by pair."""
    n = len(z)
    s = [[(z[i] @ corrupted[j]) / (z[i].norm() * corrupted[j].norm()) for j in range(n)] for i in range(n)]
    total = torch.zeros((), dtype=z.dtype)
    for i in range(n):
        mean = sum(torch.exp(s[i][k] / temperature) for k in range(n)) / n
        total = total - torch.log(torch.exp(s[i][i] / temperature) / mean)
    return total / n


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_info_nce_and_its_gradient_against_the_paper(temperature):
    ours = [rows(5, 3, seed=seed).requires_grad_() for seed in (0, 1)]
    naive = [z.detach().clone().requires_grad_() for z in ours]
    loss, _ = info_nce(*ours, temperature)
    expected = naive_info_nce(*naive, temperature)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(ours, naive, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_loss_is_zero_at_chance_and_minus_log_n_when_perfect():
    same = torch.ones(8, 4, dtype=torch.float64)
    assert float(info_nce(same, same, 1.0)[0]) == pytest.approx(0.0, abs=1e-12)
    loss, accuracy = info_nce(torch.eye(8), torch.eye(8), 0.01)
    assert float(loss) == pytest.approx(-math.log(8), abs=1e-5)
    assert accuracy == 1.0
    assert info_nce(torch.eye(8), torch.eye(8).roll(1, 0), 1.0)[1] == 0.0


def test_corruption_takes_whole_counts_of_columns_from_the_marginals():
    num_rows, num_columns = 4000, 5
    marginal = torch.arange(7.0)[:, None] + 100 * torch.arange(1.0, num_columns + 1)  # tells column and donor row
    x = torch.full((num_rows, num_columns), -1.0)
    keys = row_keys(0, 0, torch.arange(num_rows))
    corrupted = corrupt(x, keys, marginal, 3)
    replaced = corrupted != -1
    assert (replaced.sum(1) == 3).all()
    assert replaced.float().mean(0).tolist() == pytest.approx([0.6] * num_columns, abs=0.03)
    column, donor = corrupted // 100, corrupted % 100
    assert (column == torch.arange(1.0, num_columns + 1))[replaced].all()
    shares = torch.bincount(donor[replaced].long(), minlength=7) / replaced.sum()
    assert shares.tolist() == pytest.approx([1 / 7] * 7, abs=0.02)
    pairs = replaced[:, 0] & replaced[:, 1]
    assert float((donor[:, 0] == donor[:, 1])[pairs].float().mean()) == pytest.approx(1 / 7, abs=0.03)
    assert torch.equal(x, torch.full_like(x, -1.0))


def test_corruption_of_a_row_does_not_depend_on_the_batch():
    x, marginal, keys = rows(10, 6, seed=0), rows(30, 6, seed=1), row_keys(3, 4, torch.arange(10))
    whole = corrupt(x, keys, marginal, 3)
    halves = [corrupt(x[part], keys[part], marginal, 3) for part in (slice(0, 5), slice(5, 10))]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, corrupt(x, row_keys(3, 5, torch.arange(10)), marginal, 3))


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", -1.0), ("corruption_rate", 0.0), ("corruption_rate", 1.0), ("hidden_dim", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        ScarfConfig(name="scarf", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_a_rate_that_corrupts_no_column_is_refused():
    backbone = build_backbone("mlp:8x1", modality="tabular", input_shape=(3,))
    with pytest.raises(RequestError, match=r"pretrain\.method\.corruption_rate: 0\.3 of 3 columns"):
        SPEC.method(ScarfConfig(name="scarf", corruption_rate=0.3), backbone, (3,))
    assert SPEC.method(ScarfConfig(name="scarf", corruption_rate=0.334), backbone, (3,)).num_corrupted == 1
    assert SPEC.method(ScarfConfig(name="scarf", corruption_rate=0.29), backbone, (100,)).num_corrupted == 29


def loss_and_gradients() -> dict[str, Tensor]:
    """Of this rank's rows of one batch."""
    backbone = build_backbone("mlp:9x2", modality="tabular", input_shape=(6,), seed=1)
    torch.manual_seed(0)
    method = SPEC.method(ScarfConfig(name="scarf", hidden_dim=8), backbone, (6,)).double()
    method.prepare(TrainStats(40, rows(40, 6, seed=2), torch.arange(40)))
    mine = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    batch = Batch([rows(8, 6, seed=3)[mine]], torch.arange(8)[mine], row_keys(0, 2, torch.arange(8))[mine])
    output = method(batch, "main")
    output["loss"].backward()
    results = {"loss": output["loss"].detach(), "accuracy": output["contrast_accuracy"].double()}
    return results | {name: p.grad for name, p in method.named_parameters()}


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    first, second = run_ranks(loss_and_gradients)
    for key, expected in loss_and_gradients().items():
        found = (first[key] + second[key]) / 2  # as DDP averages gradients
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}")
    assert not torch.equal(first["loss"], second["loss"])
