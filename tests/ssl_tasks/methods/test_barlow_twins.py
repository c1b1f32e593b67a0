"""The redundancy-reduction loss against loops written from the paper; two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows
from torch import Tensor

from ssl_tasks.methods.barlow_twins import SPEC, BarlowTwinsConfig, barlow_twins_loss


def naive_loss(z1: Tensor, z2: Tensor, redundancy: float) -> Tensor:
    """Equations 1 and 2 of arXiv 2103.03230, entry by entry; the epsilon is that of the paper's batch norm."""
    num_rows, num_features = z1.shape

    def standardized(z: Tensor, i: int) -> list[Tensor]:
        mean = sum(z[:, i]) / num_rows
        var = sum((x - mean) ** 2 for x in z[:, i]) / num_rows
        return [(x - mean) / torch.sqrt(var + 1e-5) for x in z[:, i]]

    loss = torch.zeros((), dtype=z1.dtype)
    for i in range(num_features):
        for j in range(num_features):
            pairs = zip(standardized(z1, i), standardized(z2, j), strict=True)
            correlation = sum(a * b for a, b in pairs) / num_rows
            loss = loss + ((1 - correlation) ** 2 if i == j else redundancy * correlation**2)
    return loss


@pytest.mark.parametrize("redundancy", [0.005, 0.7])
def test_the_loss_and_its_gradient_against_the_paper(redundancy):
    assert_same_loss_and_gradients(
        lambda *z: barlow_twins_loss(*z, redundancy)[0],
        lambda *z: naive_loss(*z, redundancy),
        [rows(6, 3, seed=seed) for seed in (0, 1)],
    )


def test_equal_views_of_uncorrelated_features_cost_nothing():
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    loss, correlation = barlow_twins_loss(z, z, 1.0)
    assert float(loss) == pytest.approx(0.0, abs=1e-9)
    assert float(correlation) == pytest.approx(1.0, abs=1e-4)
    assert float(barlow_twins_loss(z, -z, 1.0)[0]) == pytest.approx(8.0, rel=1e-4)


def test_bf16_projections_are_widened():
    z1, z2 = (rows(16, 4, seed=seed).bfloat16() for seed in (0, 1))
    loss, _ = barlow_twins_loss(z1, z2, 0.1)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(barlow_twins_loss(z1.double(), z2.double(), 0.1)[0]), rel=1e-5)


@pytest.mark.parametrize(("field", "value"), [("redundancy", 0.0), ("out_dim", 1)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        BarlowTwinsConfig(name="barlow_twins", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, out_dim=5, redundancy=0.1)  # five columns: the ranks' shares differ


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
