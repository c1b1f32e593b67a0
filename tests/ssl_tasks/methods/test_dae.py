"""The denoising error against loops, and what corruption does."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from ssl_tasks.methods import noise
from ssl_tasks.methods.dae import DAEConfig, corrupt, denoising_loss
from ssl_tasks.methods.heads import ConvDecoder
from ssl_tasks.randomness import row_keys


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_loss(reconstruction: Tensor, clean: Tensor, masked: Tensor, emphasis: float) -> Tensor:
    """JMLR 11 (2010), equation 9, entry by entry, with weights that sum to one in each row."""
    total = torch.zeros((), dtype=clean.dtype)
    for b in range(len(clean)):
        alpha = beta = torch.zeros((), dtype=clean.dtype)
        num_alpha = num_beta = 0
        for index in (
            torch.cartesian_prod(*(torch.arange(n) for n in clean.shape[1:])).view(-1, clean.ndim - 1).tolist()
        ):
            at = (b, *index)
            error = (clean[at] - reconstruction[at]) ** 2
            if masked[(b, 0, *index[1:]) if clean.ndim == 4 else at]:
                alpha, num_alpha = alpha + error, num_alpha + 1
            else:
                beta, num_beta = beta + error, num_beta + 1
        total = total + (emphasis * alpha + beta) / (emphasis * num_alpha + num_beta)
    return total / len(clean)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 3, 4)])
@pytest.mark.parametrize("emphasis", [1.0, 4.0])
def test_loss_and_its_gradient_against_the_paper(shape, emphasis):
    clean = rows(*shape, seed=0)
    _, masked = corrupt(clean, row_keys(0, 0, torch.arange(3)), 0.4, 0.0)
    ours = rows(*shape, seed=1).requires_grad_()
    naive = ours.detach().clone().requires_grad_()
    loss, expected = denoising_loss(ours, clean, masked, emphasis), naive_loss(naive, clean, masked, emphasis)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, naive.grad, rtol=1e-12, atol=1e-12)
    if emphasis == 1.0:
        torch.testing.assert_close(loss, (ours - clean).square().mean())


def test_masking_zeroes_pixels_in_all_channels_at_the_rate_asked_for():
    x = torch.ones(50, 3, 20, 20)
    corrupted, masked = corrupt(x, row_keys(0, 0, torch.arange(50)), 0.3, 0.0)
    assert masked.shape == (50, 1, 20, 20)
    assert float(masked.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(corrupted == 0, masked.expand_as(x))
    assert torch.equal(corrupted[~masked.expand_as(x)], torch.ones(1).expand(int((~masked).sum()) * 3))
    assert torch.equal(x, torch.ones_like(x))


def test_noise_has_the_deviation_asked_for_and_spares_what_is_masked():
    x = torch.full((200, 50), 5.0)
    corrupted, masked = corrupt(x, row_keys(0, 0, torch.arange(200)), 0.2, 0.5)
    assert (corrupted[masked] == 0).all()
    noise = corrupted[~masked] - 5
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    assert math.isclose(float((noise.abs() < 0.5).float().mean()), 0.683, abs_tol=0.02)


def test_corruption_of_a_row_does_not_depend_on_the_batch_nor_on_the_chunks(monkeypatch):
    x, keys = rows(10, 2, 5, 5, seed=0).float(), row_keys(3, 4, torch.arange(10))
    whole = corrupt(x, keys, 0.3, 0.2)[0]
    halves = [corrupt(x[part], keys[part], 0.3, 0.2)[0] for part in (slice(0, 5), slice(5, 10))]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, corrupt(x, row_keys(3, 5, torch.arange(10)), 0.3, 0.2)[0])
    monkeypatch.setattr(noise, "MAX_NUMBERS", 60)
    assert torch.equal(whole, corrupt(x, keys, 0.3, 0.2)[0])


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 8), (3, 28, 20), (2, 5, 33)])
def test_conv_decoder_covers_the_image_whatever_its_size(shape):
    decoder = ConvDecoder(6, shape, width=4)
    image = decoder(torch.randn(2, 6))
    assert image.shape == (2, *shape)
    assert max(decoder.grid[1:]) <= ConvDecoder.START
    assert float(image.detach().std(dim=(0, 1)).min()) > 0  # no place is left constant


@pytest.mark.parametrize(
    ("field", "value"), [("mask_rate", 1.0), ("mask_rate", -0.1), ("noise_std", -1.0), ("emphasis", 0.5)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        DAEConfig(name="dae", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_no_corruption_at_all_is_refused():
    with pytest.raises(ValidationError, match="mask_rate and noise_std are both 0"):
        DAEConfig(name="dae", mask_rate=0.0)
    assert DAEConfig(name="dae", mask_rate=0.0, noise_std=0.1).noise_std == 0.1
