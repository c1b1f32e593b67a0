"""The squared error against loops, the bottleneck, principal components, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows, tiny, tiny_batch
from torch import Tensor, nn

from ssl_tasks.methods.autoencoder import SPEC, Autoencoder, AutoencoderConfig, squared_error
from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.heads import ConvDecoder, decoder


def naive_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Mean over rows of the mean over entries, entry by entry."""
    total = torch.zeros((), dtype=target.dtype)
    for made, wanted in zip(reconstruction, target, strict=True):
        pairs = list(zip(made.flatten(), wanted.flatten(), strict=True))
        total = total + sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    return total / len(target)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 3, 4)])
def test_the_loss_and_its_gradient_against_loops(shape):
    inputs = [rows(*shape, seed=seed) for seed in (0, 1)]
    assert_same_loss_and_gradients(squared_error, naive_error, inputs)


def test_the_error_of_a_case_by_hand():
    assert squared_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])) == 3.5


def test_the_forward_reconstructs_its_own_input():
    method = tiny(SPEC)
    batch = tiny_batch(method)
    (x,) = batch.views
    torch.testing.assert_close(method(batch, "main")["loss"], naive_error(method.decoder(method.backbone(x)), x))


def test_images_get_convolutions_and_tables_a_hidden_layer():
    images, table = decoder(6, (2, 9, 7), 5), decoder(6, (7,), 5)
    assert isinstance(images, ConvDecoder)
    assert images(torch.zeros(3, 6)).shape == (3, 2, 9, 7)
    assert [tuple(layer.weight.shape) for layer in table if isinstance(layer, nn.Linear)] == [(5, 6), (7, 5)]


class Copy(nn.Module):
    """Features are the row itself, by a weight that can move."""

    num_features = 6

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def test_a_linear_bottleneck_finds_no_less_than_the_principal_components_leave():
    """Eckart and Young: no linear code of two numbers has a smaller error than two principal components."""
    torch.manual_seed(0)
    x = rows(40, 6, seed=0) @ torch.diag(torch.tensor([3.0, 2.0, 0.3, 0.2, 0.1, 0.1], dtype=torch.float64))
    x = x - x.mean(0)
    best = float(torch.linalg.svdvals(x)[2:].square().sum() / x.numel())
    method = Autoencoder(AutoencoderConfig(name="autoencoder", code_dim=2), Copy(), (6,)).double()
    method.decoder = nn.Linear(2, 6).double()
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    batch = Batch([x], torch.arange(40), torch.arange(40))
    for _ in range(400):
        loss = method(batch, "main")["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert best * (1 - 1e-9) <= loss.item() < 1.05 * best


def test_a_bottleneck_is_there_where_asked_for():
    assert isinstance(tiny(SPEC).bottleneck, nn.Identity)
    assert tiny(SPEC, code_dim=3).bottleneck.weight.shape == (3, 6)


@pytest.mark.parametrize(("field", "value"), [("code_dim", 0), ("decoder_width", 0), ("mask_rate", 0.5)])
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        AutoencoderConfig(name="autoencoder", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, code_dim=3, decoder_width=4)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
