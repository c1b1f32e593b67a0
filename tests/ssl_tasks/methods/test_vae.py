"""The bound against integrals and loops, the noise of the code, collapse, two processes against one."""

import math

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor, nn
from torch.distributions import Normal

from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.vae import SPEC, VAE, VAEConfig, bound_terms, reparametrized
from ssl_tasks.randomness import row_keys


def naive_bound(reconstruction: Tensor, x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log N(x; reconstruction, 1) + log sqrt(2 pi) + KL by the textbook's log std form, entry by entry."""
    total = torch.zeros((), dtype=x.dtype)
    for b in range(len(x)):
        for made, wanted in zip(reconstruction[b].flatten(), x[b].flatten(), strict=True):
            total = total + (made - wanted) ** 2 / 2
        for m, v in zip(mean[b], log_variance[b], strict=True):
            std = torch.exp(v / 2)
            total = total - torch.log(std) + (std**2 + m**2) / 2 - 0.5
    return total / len(x)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 3, 4)])
def test_the_bound_and_its_gradient_against_the_paper(shape):
    inputs = [rows(*shape, seed=0), rows(*shape, seed=1), rows(3, 4, seed=2), rows(3, 4, seed=3)]
    assert_same_loss_and_gradients(lambda *z: sum(bound_terms(*z)), naive_bound, inputs)


def test_the_divergence_is_the_integral_of_its_definition():
    mean, log_variance = (torch.tensor([[value]], dtype=torch.float64) for value in (0.7, -0.9))
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    own, prior = Normal(mean[0, 0], (log_variance[0, 0] / 2).exp()), Normal(torch.zeros_like(z), 1.0)
    integral = torch.trapezoid(own.log_prob(z).exp() * (own.log_prob(z) - prior.log_prob(z)), z)
    _, divergence = bound_terms(mean, mean, mean, log_variance)
    torch.testing.assert_close(divergence, integral, rtol=1e-8, atol=0)
    zero = torch.zeros(2, 3)
    assert bound_terms(zero, zero, zero, zero)[1] == 0


def test_the_code_has_the_mean_and_deviation_asked_for():
    keys = row_keys(0, 0, torch.arange(20_000))
    mean, log_variance = torch.tensor([[1.0, -2.0]]).expand(20_000, 2), torch.tensor([[0.0, 2.0]]).expand(20_000, 2)
    code = reparametrized(mean, log_variance, keys)
    torch.testing.assert_close(code.mean(0), mean[0], rtol=0, atol=0.06)
    torch.testing.assert_close(code.std(0), (log_variance[0] / 2).exp(), rtol=0.02, atol=0)
    assert abs(float(torch.corrcoef(code.T)[0, 1])) < 0.03
    half = reparametrized(mean[:7], log_variance[:7], keys[:7])
    assert torch.equal(half, code[:7])  # a row's noise does not depend on the batch


def test_the_forward_is_the_bound_over_entries():
    method = tiny(SPEC, beta=0.3, latent_dim=3, decoder_width=4)
    batch = tiny_batch(method)
    (x,) = batch.views
    posterior = method.posterior(method.backbone(x))
    mean, log_variance = posterior[:, :3], posterior[:, 3:]
    made = method.decoder(reparametrized(mean, log_variance, batch.keys))
    error = naive_bound(made, x, torch.zeros_like(mean), torch.zeros_like(mean))
    divergence = naive_bound(x, x, mean, log_variance)
    output = method(batch, "main")
    torch.testing.assert_close(output["loss"], (error + 0.3 * divergence) / 72)
    torch.testing.assert_close(output["reconstruction"], error.detach())
    torch.testing.assert_close(output["divergence"], divergence.detach())


class Linear(nn.Linear):
    num_features = 2


def test_directions_that_vary_more_than_beta_are_kept_and_others_collapse():
    """Of a linear model the divergence at the optimum is sum of log(variance / beta) / 2 over variances above beta
    (Lucas et al., arXiv 1911.02469, section 4)."""
    torch.manual_seed(0)
    x = rows(64, 2, seed=0)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / 64)).T * torch.tensor([3.0, 0.5], dtype=torch.float64)
    method = VAE(VAEConfig(name="vae", latent_dim=2), Linear(2, 2, bias=False), (2,)).double()
    method.decoder = nn.Linear(2, 2).double()
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    found = []
    for step in range(1500):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / 1500)
        batch = Batch([x], torch.arange(64), row_keys(0, step, torch.arange(64)))
        output = method(batch, "main")
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        found.append(output["divergence"].item())
    assert sum(found[-100:]) / 100 == pytest.approx(math.log(9.0) / 2, rel=0.1)


@pytest.mark.parametrize(("field", "value"), [("beta", -0.1), ("latent_dim", 0), ("decoder_width", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        VAEConfig(name="vae", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, latent_dim=3, decoder_width=4)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
