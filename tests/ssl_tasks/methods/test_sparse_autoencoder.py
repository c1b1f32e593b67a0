"""Both penalties against loops written from the notes, what they do to the code, two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.sparse_autoencoder import SPEC, SparseAutoencoderConfig, kl_penalty, unit_rms


def naive_kl(code: Tensor, rho: float) -> Tensor:
    """CS294A, section 3, unit by unit; the mean of its terms."""
    terms = []
    for unit in code.T:
        mean = sum(unit) / len(unit)
        terms.append(rho * torch.log(rho / mean) + (1 - rho) * torch.log((1 - rho) / (1 - mean)))
    return sum(terms) / len(terms)


def naive_l1(code: Tensor) -> Tensor:
    """Mean of |a| / sqrt(mean of a^2) of each row."""
    ratios = [sum(abs(a) for a in row) / len(row) / torch.sqrt(sum(a * a for a in row) / len(row)) for row in code]
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("rho", [0.05, 0.3])
def test_kl_and_its_gradient_against_the_notes(rho):
    assert_same_loss_and_gradients(
        lambda h: kl_penalty(h, rho), lambda h: naive_kl(h, rho), [rows(5, 3, seed=0).sigmoid()]
    )


def test_kl_of_a_case_by_hand():
    code = torch.tensor([[0.25, 0.9], [0.75, 0.1]])  # both units are active half the time
    assert kl_penalty(code, 0.5) == 0
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert kl_penalty(code, 0.25).item() == pytest.approx(expected, rel=1e-6)


def test_a_unit_that_is_always_off_or_on_has_a_finite_penalty():
    code = torch.tensor([[0.0, 1.0], [0.0, 1.0]], requires_grad=True)
    penalty = kl_penalty(code, 0.1)
    penalty.backward()
    assert torch.isfinite(penalty)
    assert torch.isfinite(code.grad).all()


def test_l1_is_1_where_units_are_equal_and_least_where_one_is_active():
    even, one = torch.full((1, 4), 0.3), torch.tensor([[0.0, 0.7, 0.0, 0.0]])
    assert unit_rms(even).abs().mean().item() == pytest.approx(1.0, rel=1e-4)
    assert unit_rms(one).abs().mean().item() == pytest.approx(0.5, rel=1e-4)


def test_l1_is_blind_to_the_scale_of_the_code():
    code = rows(5, 4, seed=0).sigmoid()
    torch.testing.assert_close(unit_rms(code), unit_rms(0.1 * code), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("penalty", "beta"), [("kl", 3.0), ("l1", 0.1)])
def test_the_forward_adds_the_weighted_penalty_of_the_sigmoid_code(penalty, beta):
    method = tiny(SPEC, penalty=penalty, hidden_dim=5)
    batch = tiny_batch(method)
    (x,) = batch.views
    code = torch.sigmoid(method.hidden(method.backbone(x)))
    output = method(batch, "main")
    if penalty == "kl":
        expected = naive_kl(code, 0.05)
    else:
        expected = naive_l1(code)
        code = code / code.square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(output["penalty"], expected.detach(), rtol=1e-5, atol=0)
    error = squared_error(method.decoder(code), x)
    torch.testing.assert_close(output["loss"], error + beta * expected, rtol=1e-5, atol=0)
    assert tiny(SPEC, penalty=penalty, beta=0.7).beta == 0.7


@pytest.mark.parametrize("penalty", ["kl", "l1"])
def test_training_makes_the_code_sparse(penalty):
    method = tiny(SPEC, penalty=penalty, hidden_dim=8, beta=3.0, rho=0.1)
    batch = tiny_batch(method)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    found = []
    for _ in range(150):
        output = method(batch, "main")
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        found.append(output["penalty"].item())
    code = method.hidden(method.backbone(batch.views[0])).sigmoid().detach()
    if penalty == "kl":
        torch.testing.assert_close(code.mean(dim=0), torch.full((8,), 0.1, dtype=code.dtype), rtol=0, atol=0.03)
    else:
        assert found[0] > 0.95
        assert found[-1] < 0.6  # 0.5 is two of eight units, 1 all


@pytest.mark.parametrize(
    ("field", "value"), [("rho", 0.0), ("rho", 1.0), ("beta", -1.0), ("penalty", "l2"), ("hidden_dim", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        SparseAutoencoderConfig(name="sparse_autoencoder", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks_kl() -> dict[str, Tensor]:
    return one_step(SPEC, hidden_dim=5, decoder_width=4)


def in_ranks_l1() -> dict[str, Tensor]:
    return one_step(SPEC, penalty="l1", decoder_width=4)


@pytest.mark.parametrize("step", [in_ranks_kl, in_ranks_l1])
def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks, step):
    assert_ranks_agree(step(), run_ranks(step))
