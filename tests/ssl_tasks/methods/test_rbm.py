"""Free energy against all hidden states, its gradient against the outer products of CD, chains, two ranks."""

import copy
import itertools

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import SHAPE, TinyConv, assert_ranks_agree, rows, tiny, tiny_batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.rbm import RBM, SPEC, RBMConfig, free_energy, gibbs
from ssl_tasks.randomness import uniform
from ssl_tasks.training.collectives import world_size


def machine(name: str, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    modality = "image" if len(shape) == 3 else "tabular"
    backbone = build_backbone(name, modality=modality, input_shape=shape).double()
    with torch.no_grad():
        backbone.hidden_bias.copy_(rows(len(backbone.hidden_bias), seed=3))
    return backbone


def make(name: str = "rbm:5", **options) -> RBM:
    method = tiny(SPEC, backbone=machine(name), **options)
    with torch.no_grad():
        method.visible_bias.copy_(rows(len(method.visible_bias), seed=4))
    return method


def energy(backbone: nn.Module, b: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """Lee et al. 2009, section 3.2, with gaussian visible units: filters at every place; dense is one place."""
    total = (v - b).square().sum() / 2
    if h.ndim == 1:
        return total - sum(
            h[j] * (backbone.hidden_bias[j] + (backbone.weight[j] * v.flatten()).sum()) for j in range(len(h))
        )
    for k, i, j in itertools.product(*map(range, h.shape)):
        size = backbone.weight.shape[-1]
        seen = (backbone.weight[k] * v[:, i : i + size, j : j + size]).sum()
        total = total - h[k, i, j] * (backbone.hidden_bias[k] + seen)
    return total


@pytest.mark.parametrize(("name", "shape"), [("rbm:4", (6,)), ("rbm:3", (2, 2, 2)), ("crbm:2x2", (2, 3, 3))])
def test_free_energy_is_the_sum_over_all_hidden_states(name, shape):
    backbone = machine(name, shape)
    v = rows(2, *shape, seed=0)
    b = rows(*backbone.visible_bias_shape, seed=1)
    drive = backbone.drive(v)
    found = free_energy(v, drive, b)
    for row in range(2):
        states = itertools.product([0.0, 1.0], repeat=drive[0].numel())
        energies = [energy(backbone, b, v[row], torch.tensor(h).double().view(drive[0].shape)) for h in states]
        torch.testing.assert_close(found[row], -torch.logsumexp(-torch.stack(energies), dim=0))


def ends(method: RBM, batch: Batch, start: Tensor) -> Tensor:
    bias = method.visible_bias.view(method.bias_shape)
    steps, noise_free = method.config.gibbs_steps, not method.config.persistent
    return gibbs(method.backbone, bias, start, batch.keys, steps, noise_free=noise_free)


@pytest.mark.parametrize("options", [{}, {"gibbs_steps": 3}, {"persistent": True}])
def test_the_gradient_is_the_outer_products_of_contrastive_divergence(options):
    """Guide, equations 4, 7 and 8: <v h> of the data less that of the chains' ends, by loops; we go downhill."""
    method = make(**options)
    batch = tiny_batch(method)
    v = batch.views[0]
    end = ends(method, batch, v).flatten(1)
    method(batch, "main")["loss"].backward()
    W, c = method.backbone.weight, method.backbone.hidden_bias
    grads = {"W": torch.zeros_like(W), "c": torch.zeros_like(c), "b": torch.zeros_like(method.visible_bias)}
    for sign, units in ((-1, v.flatten(1)), (1, end)):
        for row in units:
            for j in range(len(c)):
                h = 1 / (1 + torch.exp(-c[j] - (W[j] * row).sum()))
                grads["W"][j] += sign * h.detach() * row / 8
                grads["c"][j] += sign * h.detach() / 8
            grads["b"] += sign * row / 8
    for parameter, name in ((W, "W"), (c, "c"), (method.visible_bias, "b")):
        torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-10, atol=1e-12)


def test_the_convolutional_gradient_is_the_outer_products_at_every_place():
    """Lee et al. 2009, section 3.3: <v * h> over all places."""
    method = make("crbm:3x4")
    batch = tiny_batch(method)
    v = batch.views[0]
    end = ends(method, batch, v)
    method(batch, "main")["loss"].backward()
    W, c = method.backbone.weight.detach(), method.backbone.hidden_bias.detach()
    grad_W, grad_c = torch.zeros_like(W), torch.zeros_like(c)
    for sign, images in ((-1, v), (1, end)):
        for image, k, i, j in itertools.product(images, range(3), range(3), range(3)):
            seen = image[:, i : i + 4, j : j + 4]
            h = torch.sigmoid(c[k] + (W[k] * seen).sum())
            grad_W[k] += sign * h * seen / 8
            grad_c[k] += sign * h / 8
    torch.testing.assert_close(method.backbone.weight.grad, grad_W, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(method.backbone.hidden_bias.grad, grad_c, rtol=1e-10, atol=1e-12)
    grad_b = (end - v).sum((2, 3)).mean(dim=0)  # one bias for each channel
    torch.testing.assert_close(method.visible_bias.grad, grad_b, rtol=1e-10, atol=1e-12)


def test_a_gibbs_step_unit_by_unit():
    backbone, b, v, keys = machine("rbm:4", (3,)), rows(3, seed=1), rows(5, 3, seed=0), torch.arange(5)
    u = uniform(keys, "rbm.hidden.0", 4, torch.float64)
    found = gibbs(backbone, b, v, keys, 1, noise_free=True)
    for row in range(5):
        on = [
            u[row, j] < torch.sigmoid(backbone.hidden_bias[j] + (backbone.weight[j] * v[row]).sum()) for j in range(4)
        ]
        expected = b + sum(backbone.weight[j] * float(on[j]) for j in range(4))
        torch.testing.assert_close(found[row], expected.detach())
    twice = gibbs(backbone, b, v, keys, 2, noise_free=True)
    assert not torch.equal(twice, gibbs(backbone, b, found, keys, 1, noise_free=True))  # new bits in each step


def test_long_chains_have_the_distribution_of_the_model():
    """Against p(v) ~ exp(-F(v)), on a grid: one visible unit, so that mean and variance can be integrated."""
    backbone = machine("rbm:2", (1,))
    with torch.no_grad():
        backbone.weight.copy_(torch.tensor([[2.0], [-1.0]]))
    b = torch.tensor([0.3]).double()
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    share = torch.softmax(-free_energy(grid, backbone.drive(grid), b), dim=0).detach()
    mean = (share * grid[:, 0]).sum()
    std = (share * (grid[:, 0] - mean).square()).sum().sqrt()
    made = gibbs(backbone, b, torch.zeros(20_000, 1).double(), torch.arange(20_000), 20, noise_free=False)
    assert made.mean().item() == pytest.approx(mean.item(), abs=0.04)
    assert made.std().item() == pytest.approx(std.item(), rel=0.03)


def test_the_reconstruction_error_is_that_of_the_mean_field():
    method = make()
    batch = tiny_batch(method)
    v = batch.views[0].flatten(1)
    h = torch.sigmoid(v @ method.backbone.weight.T + method.backbone.hidden_bias)
    expected = (method.visible_bias + h @ method.backbone.weight - v).square().mean()
    torch.testing.assert_close(method(batch, "main")["reconstruction_error"], expected.detach())


def step(method: RBM, number: int = 0) -> Batch:
    batch = tiny_batch(method)
    batch.keys = batch.keys + 8 * number
    method(batch, "main")["loss"].backward()
    method.after_step(0.5)
    return batch


def test_persistent_chains_start_at_the_first_rows_and_go_on():
    method = make(persistent=True)
    first = step(method)
    assert torch.equal(method.chains, ends(method, first, first.views[0]))
    before = method.chains.clone()
    second = step(method, 1)
    assert torch.equal(method.chains, ends(method, second, before))
    assert method.fresh == []
    plain = make()
    step(plain)
    assert plain.chains.shape == (0, *SHAPE)


def test_a_batch_in_parts_moves_the_same_chains():
    whole, parts = make(persistent=True), make(persistent=True)
    for number in range(2):
        batch = step(whole, number)
        for part in (slice(0, 4), slice(4, 8)):
            parts(Batch([batch.views[0][part]], batch.positions[part], batch.keys[part]), "main")["loss"].backward()
        parts.after_step(0.5)
    assert torch.equal(whole.chains, parts.chains)
    torch.testing.assert_close(parts.backbone.weight.grad / 2, whole.backbone.weight.grad)


def test_chains_go_on_after_a_resume():
    method, resumed = make(persistent=True), make(persistent=True)
    step(method)
    resumed.load_state_dict(copy.deepcopy(method.state_dict()))
    for each in (method, resumed):
        step(each, 1)
    assert torch.equal(method.chains, resumed.chains)


@pytest.mark.parametrize(("name", "persistent"), [("rbm:8", False), ("rbm:8", True), ("crbm:6x3", False)])
def test_training_lowers_the_reconstruction_error_and_units_stay_different(name, persistent):
    """Images of two kinds: after training they are told apart."""
    method = tiny(SPEC, backbone=machine(name), persistent=persistent)
    kinds = rows(2, *SHAPE, seed=7)
    v = kinds[torch.arange(8) % 2] + 0.1 * rows(8, *SHAPE, seed=8)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.003)
    errors = []
    for number in range(150):
        output = method(Batch([v], torch.arange(8), torch.arange(8) + 8 * number), "main")
        errors.append(output["reconstruction_error"].item())
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        method.after_step(number / 150)
    features = method.backbone(v)
    assert sum(errors[-10:]) / 10 < 0.7 * errors[0]
    assert (features[0] - features[1]).norm() > 2 * (features[0] - features[2]).norm()


def test_another_backbone_is_refused():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: method rbm trains .* rbm:<hidden>.*crbm:"):
        SPEC.method(RBMConfig(name="rbm"), TinyConv(), SHAPE)


def test_wrong_values_are_refused_by_key():
    with pytest.raises(ValidationError) as caught:
        RBMConfig(name="rbm", gibbs_steps=0)
    assert caught.value.errors()[0]["loc"] == ("gibbs_steps",)


def in_ranks() -> dict[str, Tensor]:
    """Three steps of persistent chains: from the second on, each rank goes on with its own."""
    method = make("crbm:3x4", persistent=True)
    module = DistributedDataParallel(method, broadcast_buffers=False) if world_size() > 1 else method
    results = {}
    for number in range(3):
        batch = tiny_batch(method)
        batch.keys = batch.keys + 8 * number
        method.zero_grad()
        output = module(batch, "main")
        output["loss"].backward()
        results |= {f"mean {number} {name}": value.detach() for name, value in output.items()}
        with torch.no_grad():
            for name, parameter in method.named_parameters():
                results[f"grad {number} {name}"] = parameter.grad.clone()
                parameter -= 0.01 * parameter.grad
        method.after_step(0.5)
        results[f"chains {number}"] = method.chains
    return results


def test_two_ranks_compute_the_losses_gradients_and_chains_of_one(run_ranks):
    alone = in_ranks()
    assert alone["chains 2"].shape == (8, *SHAPE)
    assert_ranks_agree(alone, run_ranks(in_ranks))
