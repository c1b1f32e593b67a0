"""The penalty against exact Jacobians, second gradients through batch norm and attention, two processes against one."""

import copy

import pytest
import timm
import torch
from pydantic import ValidationError
from tests_ranks import SHAPE, TinyConv, assert_ranks_agree, one_step, rows, tiny, tiny_batch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from ssl_tasks.methods.autoencoder import squared_error
from ssl_tasks.methods.contractive import SPEC, ContractiveConfig, jacobian_penalty
from ssl_tasks.methods.second_order import twice_differentiable


def signs_of(bits: list[int], shape: tuple[int, ...]) -> Tensor:
    return torch.tensor(bits, dtype=torch.float64).view(shape) * 2 - 1


def exact(network: nn.Module, x: Tensor) -> Tensor:
    """Equation 1, entry by entry: all of the batch's features by all of the batch's inputs, over rows and features."""
    matrix = jacobian(network, x, create_graph=True)
    return matrix.square().sum() / network(x).numel()


def every_sign(count: int) -> list[list[int]]:
    return [[number >> place & 1 for place in range(count)] for number in range(2**count)]


def standardized(network: nn.Module) -> nn.Sequential:
    return nn.Sequential(network, nn.BatchNorm1d(3, affine=False)).double()


@pytest.mark.parametrize("norm", [False, True])
def test_over_all_signs_the_mean_and_its_gradient_are_those_of_the_exact_jacobian(norm):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    network = standardized(network) if norm else network
    x = rows(3, 4, seed=0).requires_grad_()
    found = [jacobian_penalty(network(x), x, signs_of(bits, (3, 1, 3))) for bits in every_sign(9)]
    expected = exact(network, x)
    mean = torch.stack(found).mean()
    torch.testing.assert_close(mean, expected, rtol=1e-10, atol=1e-12)
    assert float(torch.stack(found).detach().std()) > 1e-3  # single estimates do differ
    weights = [weight for name, weight in network.named_parameters() if weight.ndim == 2]
    gradients = torch.autograd.grad(mean, weights), torch.autograd.grad(expected, weights)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
        assert float(a.abs().max()) > 1e-6


def test_one_projection_is_exact_where_features_look_at_different_inputs():
    x = torch.tensor([[1.0, 2.0, 5.0]], requires_grad=True)
    code = torch.stack([x[:, 0] ** 2, 3 * x[:, 1]], dim=1)  # gradients (2, 0, 0) and (0, 3, 0)
    for bits in every_sign(2):
        assert jacobian_penalty(code, x, signs_of(bits, (1, 1, 2))) == (4 + 9) / 2


def test_projections_are_averaged():
    x = rows(2, 3, seed=0).requires_grad_()
    code = torch.tanh(x @ rows(3, 4, seed=1))
    signs = rows(2, 5, 4, seed=2).sign()
    single = [jacobian_penalty(code, x, signs[:, [number]]) for number in range(5)]
    torch.testing.assert_close(jacobian_penalty(code, x, signs), torch.stack(single).mean())


def test_the_estimate_of_a_convolution_with_batch_norm_is_unbiased():
    method = tiny(SPEC, num_projections=4000, decoder_width=2)
    batch = tiny_batch(method)
    network = nn.Sequential(method.backbone, method.standardize)
    expected = exact(network, batch.views[0])
    assert method(batch, "main")["penalty"].item() == pytest.approx(expected.item(), rel=0.03)


def test_the_forward_is_error_plus_weighted_penalty_and_reads_no_scale_of_the_features():
    class Scaled(TinyConv):
        scale = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * super().forward(x) + self.scale

    torch.manual_seed(0)
    method = SPEC.method(ContractiveConfig(name="contractive", weight=0.7), Scaled(), SHAPE).double()
    batch = tiny_batch(method)
    method.standardize.eps = 1e-12
    output = method(batch, "main")
    code = method.standardize(method.backbone(batch.views[0]))
    expected = squared_error(method.decoder(code), batch.views[0]) + 0.7 * output["penalty"]
    torch.testing.assert_close(output["loss"], expected)
    method.backbone.scale = 0.01
    torch.testing.assert_close(method(batch, "main")["loss"], output["loss"], rtol=1e-4, atol=0)


def test_training_contracts():
    plain, contracted = (tiny(SPEC, weight=weight, num_projections=8, decoder_width=4) for weight in (0.0, 1.0))
    batch = tiny_batch(plain)
    found = []
    for method in (plain, contracted):
        optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
        for _ in range(40):
            output = method(batch, "main")
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
        found.append(output["penalty"].item())
    assert found[1] < 0.5 * found[0], found


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_other_kinds_of_backbones_have_second_gradients(name):
    torch.manual_seed(0)
    size = {"img_size": 32} if name == "test_vit" else {}
    backbone = timm.create_model(name, num_classes=0, **size).train()
    x = rows(2, 3, 32, 32, seed=0).float().requires_grad_()
    with twice_differentiable(backbone):
        code = backbone(x)
    penalty = jacobian_penalty(code, x, rows(2, 1, code.shape[1], seed=1).sign())
    penalty.backward()
    gradients = {key: p.grad for key, p in backbone.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    attention = [key for key in gradients if "qkv.weight" in key]
    assert bool(attention) == (name == "test_vit")
    assert all(float(gradients[key].abs().max()) > 0 for key in attention)


def test_layers_are_as_they_were_afterwards():
    method = tiny(SPEC)
    before = copy.deepcopy(method.state_dict())
    with twice_differentiable(method):
        pass
    assert all("forward" not in vars(module) for module in method.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize(("field", "value"), [("weight", -0.1), ("num_projections", 0), ("decoder_width", 0)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        ContractiveConfig(name="contractive", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, weight=0.5, num_projections=2, decoder_width=4)


def test_two_ranks_compute_the_loss_penalty_gradients_and_statistics_of_one(run_ranks):
    alone = in_ranks()
    assert {"mean main penalty", "buffer standardize.running_var", "buffer backbone.layers.1.running_mean"} <= set(
        alone
    )
    assert_ranks_agree(alone, run_ranks(in_ranks))
