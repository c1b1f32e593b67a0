"""The sum of both terms, the masked views of tables, two processes against one."""

import pytest
import torch
from pydantic import ValidationError
from tests_ranks import assert_ranks_agree, one_step, rows, tiny, tiny_batch
from torch import Tensor, nn

from ssl_tasks.methods.base import Batch
from ssl_tasks.methods.contrastive_autoencoder import (
    SPEC,
    ContrastiveAutoencoder,
    ContrastiveAutoencoderConfig,
    masked_views,
)
from ssl_tasks.randomness import row_keys


def naive_contrast(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Equation 1 of arXiv 2002.05709, anchor by anchor."""
    z = [row / row.norm() for pair in zip(z1, z2, strict=True) for row in pair]
    losses = []
    for i, anchor in enumerate(z):
        shares = [torch.exp((anchor * other).sum() / temperature) for other in z]
        losses.append(-torch.log(shares[i ^ 1] / sum(share for k, share in enumerate(shares) if k != i)))
    return sum(losses) / len(losses)


def test_the_loss_and_its_gradient_against_loops():
    method = tiny(SPEC, weight=0.7, temperature=0.5, out_dim=3, decoder_width=4)
    batch = tiny_batch(method)
    features = method.backbone(torch.cat(batch.views))
    projected = method.head(features)
    errors = [
        (method.decoder(feature[None])[0] - image).square().sum() / image.numel()
        for feature, image in zip(features, torch.cat(batch.views), strict=True)
    ]
    contrast = naive_contrast(projected[:8], projected[8:], 0.5)
    expected = sum(errors) / 16 + 0.7 * contrast
    output = method(batch, "main")
    torch.testing.assert_close(output["loss"], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output["contrast"], contrast.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(output["reconstruction"], (sum(errors) / 16).detach(), rtol=1e-10, atol=1e-12)
    weights = list(method.parameters())
    gradients = torch.autograd.grad(output["loss"], weights), torch.autograd.grad(expected, weights)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_views_of_tables_lack_other_entries_each():
    x = torch.ones(200, 30)
    keys = row_keys(0, 0, torch.arange(200))
    first, second = masked_views([x, x], keys, 0.25)
    for view in (first, second):
        assert set(view.unique().tolist()) == {0.0, 1.0}
        assert float((view == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(((first == 0) & (second == 0)).float().mean()) == pytest.approx(0.0625, abs=0.01)
    halves = [masked_views([x[part]] * 2, keys[part], 0.25)[1] for part in (slice(0, 90), slice(90, 200))]
    assert torch.equal(torch.cat(halves), second)
    assert (x == 1).all()


def test_rows_of_tables_are_reconstructed_from_masked_ones():
    class Seen(nn.Module):
        num_features = 5

        def forward(self, x: Tensor) -> Tensor:
            self.x = x
            return x

    config = ContrastiveAutoencoderConfig(name="contrastive_autoencoder", mask_rate=0.5)
    method = ContrastiveAutoencoder(config, Seen(), (5,)).double()
    method.decoder = nn.Identity()
    x, keys = rows(8, 5, seed=0), row_keys(0, 0, torch.arange(8))
    output = method(Batch([x, x], torch.arange(8), keys), "main")
    masked = torch.cat(masked_views([x, x], keys, 0.5))
    assert torch.equal(method.backbone.x, masked)
    assert not torch.equal(masked[:8], masked[8:])
    torch.testing.assert_close(output["reconstruction"], (masked - torch.cat([x, x])).square().mean())


def test_images_are_left_as_their_policy_made_them():
    method = tiny(SPEC, out_dim=3)
    batch = tiny_batch(method)
    other = Batch(batch.views, batch.positions, batch.keys + 1)
    assert torch.equal(method(batch, "main")["loss"], method(other, "main")["loss"])


@pytest.mark.parametrize(
    ("field", "value"), [("weight", -1.0), ("temperature", 0.0), ("mask_rate", 1.0), ("out_dim", 0), ("hidden_dim", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        ContrastiveAutoencoderConfig(name="contrastive_autoencoder", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    return one_step(SPEC, out_dim=3, decoder_width=4)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    assert_ranks_agree(in_ranks(), run_ranks(in_ranks))
