"""VICReg's three terms against loops written from the paper; two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.methods.vicreg import SPEC, VICRegConfig, vicreg_terms


def naive_terms(z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    """Equations 1 to 5 of arXiv 2105.04906, entry by entry, averaged as in its algorithm 1."""
    num_rows, num_features = z1.shape
    entries = [(b, j) for b in range(num_rows) for j in range(num_features)]
    found = {
        "invariance": sum((z1[b, j] - z2[b, j]) ** 2 for b, j in entries) / len(entries),
        "variance": torch.zeros((), dtype=z1.dtype),
        "covariance": torch.zeros((), dtype=z1.dtype),
    }
    for z in (z1, z2):
        means = [sum(z[:, j]) / num_rows for j in range(num_features)]
        for i in range(num_features):
            for j in range(num_features):
                products = [(z[b, i] - means[i]) * (z[b, j] - means[j]) for b in range(num_rows)]
                entry = sum(products) / (num_rows - 1)
                if i != j:
                    found["covariance"] = found["covariance"] + entry**2 / num_features
                elif (std := torch.sqrt(entry + 1e-4)) < 1:
                    found["variance"] = found["variance"] + (1 - std) / num_features
    return found


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance"])
def test_each_term_and_its_gradient_against_the_paper(name):
    spread = torch.tensor([0.3, 0.8, 3.0], dtype=torch.float64)  # below and above the hinge
    inputs = [rows(6, 3, seed=seed) * spread for seed in (0, 1)]
    assert_same_loss_and_gradients(lambda *z: vicreg_terms(*z)[name], lambda *z: naive_terms(*z)[name], inputs)


def test_the_hinge_is_closed_where_all_features_vary_enough():
    wide = 10 * rows(6, 3, seed=0)
    assert vicreg_terms(wide, wide)["variance"] == 0.0
    same = torch.ones(6, 3, dtype=torch.float64)
    assert float(vicreg_terms(same, same)["variance"]) == pytest.approx(2 * (1 - 1e-2))


def test_the_loss_weighs_the_terms():
    method = tiny(SPEC, out_dim=4, invariance=2.0, variance=3.0, covariance=5.0)
    output = method(tiny_batch(method), "main")
    expected = 2.0 * output["invariance"] + 3.0 * output["variance"] + 5.0 * output["covariance"]
    torch.testing.assert_close(output["loss"].detach(), expected)


def test_bf16_embeddings_are_widened():
    z1, z2 = (rows(16, 4, seed=seed).bfloat16() for seed in (0, 1))
    for name, term in vicreg_terms(z1, z2).items():
        assert term.dtype == torch.float32
        assert float(term) == pytest.approx(float(vicreg_terms(z1.double(), z2.double())[name]), rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("invariance", -1.0), ("variance", -1.0), ("covariance", -1.0), ("out_dim", 1)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        VICRegConfig(name="vicreg", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, out_dim=5)  # five columns: the ranks' shares differ


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
