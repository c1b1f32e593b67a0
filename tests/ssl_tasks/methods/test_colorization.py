"""Lab against published values, the encoding and the loss against loops, what the backbone sees, two processes."""

import math

import pytest
import tests_ranks
import torch
from pydantic import ValidationError
from tests_ranks import TinyConv, assert_ranks_agree, assert_same_loss_and_gradients, one_step, rows
from torch import Tensor, nn

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, TrainStats
from ssl_tasks.methods.colorization import (
    SPEC,
    Colorization,
    ColorizationConfig,
    color_loss,
    gamut_bins,
    rebalance,
    soft_encode,
    srgb_to_lab,
    to_unit,
)
from ssl_tasks.modalities.image import MODALITY

SHAPE = (3, 6, 6)
NORMALIZATION = {"input": "standard", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 255, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 255), (32.2970, 79.1875, -107.8602)),
        ((255, 255, 0), (97.1393, -21.5537, 94.4780)),
        ((0, 255, 255), (91.1132, -48.0875, -14.1312)),
        ((255, 0, 255), (60.3242, 98.2343, -60.8249)),
        ((128, 128, 128), (53.5850, 0.0, 0.0)),
        ((10, 10, 10), (2.7417, 0.0, 0.0)),  # below both knees: 10 / 255 / 12.92 * 903.3
    ],
)
def test_lab_of_known_colours(rgb, lab):
    """Under D65 with the 2 degree observer, as colour calculators print them."""
    image = torch.tensor(rgb, dtype=torch.float64).div(255).view(1, 3, 1, 1)
    assert srgb_to_lab(image).flatten().tolist() == pytest.approx(lab, abs=0.01)
    assert srgb_to_lab(image.float()).flatten().tolist() == pytest.approx(lab, abs=0.02)


def test_lab_is_computed_at_every_pixel_and_in_full_precision_under_autocast():
    images = rows(2, 3, 4, 5, seed=0).sigmoid().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = srgb_to_lab(images)
    assert found.dtype == torch.float32
    for b, i, j in [(0, 0, 0), (1, 3, 4), (1, 0, 2)]:
        alone = srgb_to_lab(images[b, :, i, j].view(1, 3, 1, 1)).flatten()
        torch.testing.assert_close(found[b, :, i, j], alone, rtol=1e-5, atol=1e-4)


def test_every_colour_lies_in_one_of_the_bins():
    bins = gamut_bins()
    assert bins.shape == (261, 2)
    assert (bins % 10 == 0).all()
    ab = srgb_to_lab(rows(1, 3, 100, 100, seed=0).mul(3).sigmoid())[0, 1:].flatten(1).T
    listed = {tuple(centre) for centre in bins.tolist()}
    assert {tuple(centre) for centre in (ab.div(10).round() * 10).tolist()} <= listed
    assert (0.0, 0.0) in listed


def test_soft_encoding_against_the_paper():
    bins, ab = gamut_bins().double(), 30 * rows(40, 2, seed=0)
    nearest, soft = soft_encode(ab, bins)
    for colour, numbers, weights in zip(ab.tolist(), nearest.tolist(), soft.tolist(), strict=True):
        distances = [math.dist(colour, centre) for centre in bins.tolist()]
        expected = sorted(range(len(bins)), key=distances.__getitem__)[:5]
        assert numbers == expected
        gauss = [math.exp(-(distances[number] ** 2) / (2 * 5.0**2)) for number in expected]
        assert weights == pytest.approx([value / sum(gauss) for value in gauss])


def test_soft_encoding_is_the_same_in_parts(monkeypatch):
    bins, ab = gamut_bins(), 30 * rows(40, 2, seed=0).float()
    whole = soft_encode(ab, bins)
    monkeypatch.setattr("ssl_tasks.methods.colorization.MAX_PIXELS", 7)
    assert all(torch.equal(a, b) for a, b in zip(whole, soft_encode(ab, bins), strict=True))


@pytest.mark.parametrize("uniform_share", [0.1, 0.5, 1.0])
def test_rebalancing_against_the_paper(uniform_share):
    """Equation 4: w proportional to 1 / ((1 - lambda) p + lambda / Q), and the sum of p w is 1."""
    share = [0.7, 0.2, 0.1, 0.0]
    found = rebalance(torch.tensor(share, dtype=torch.float64), uniform_share).tolist()
    raw = [1 / ((1 - uniform_share) * p + uniform_share / 4) for p in share]
    mean = sum(p * w for p, w in zip(share, raw, strict=True))
    assert found == pytest.approx([w / mean for w in raw])
    if uniform_share == 1.0:
        assert found == pytest.approx([1.0] * 4)


def naive_loss(logits: Tensor, ab: Tensor, bins: Tensor, weights: Tensor) -> Tensor:
    """Equations 2 and 3 of arXiv 1603.08511 with the whole distribution Z of each pixel, averaged over pixels."""
    total = torch.zeros((), dtype=logits.dtype)
    for pixel, colour in zip(logits, ab, strict=True):
        distances = ((bins - colour) ** 2).sum(dim=1)
        inside = distances.argsort()[:5]
        target = torch.zeros(len(bins), dtype=logits.dtype)
        target[inside] = torch.exp(-distances[inside] / 50)
        target = target / target.sum()
        shares = pixel.exp() / pixel.exp().sum()
        total = total - weights[target.argmax()] * sum(z * torch.log(s) for z, s in zip(target, shares, strict=True))
    return total / len(logits)


def test_the_loss_and_its_gradient_against_the_paper():
    bins = gamut_bins().double()
    ab, weights = 30 * rows(6, 2, seed=1), rows(len(bins), seed=2).exp()
    nearest, soft = soft_encode(ab, bins)
    assert_same_loss_and_gradients(
        lambda logits: color_loss(logits, nearest, soft, weights)[0],
        lambda logits: naive_loss(logits, ab, bins, weights),
        [rows(6, len(bins), seed=0)],
    )


def test_color_accuracy_counts_cells_whose_nearest_bin_is_told():
    nearest, soft = torch.tensor([[3, 1, 2, 0, 4], [5, 0, 1, 2, 3]]), torch.full((2, 5), 0.2)
    logits = torch.zeros(2, 6).index_fill_(1, torch.tensor([3]), 1.0)
    assert color_loss(logits, nearest, soft, torch.ones(6))[1] == 0.5


@pytest.mark.parametrize("kind", ["standard", "unit", "symmetric"])
@pytest.mark.parametrize(("low", "high"), [([0.0] * 3, [255.0] * 3), ([10.0, 0.0, 20.0], [200.0, 255.0, 250.0])])
def test_inputs_find_their_way_back_from_every_normalization(kind, low, high):
    stored = torch.randint(20, 200, (4, 5, 6, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    stats = {**NORMALIZATION, "input": kind, "low": low, "high": high, "depth": "uint8"}
    inputs = MODALITY.to_input(stored, stats)
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in to_unit(stats))
    black, white = torch.tensor(low), torch.tensor(high)
    expected = ((stored.float() - black) / (white - black)).permute(0, 3, 1, 2)
    torch.testing.assert_close(inputs * scale + shift, expected, rtol=1e-5, atol=1e-5)


def made(sample: Tensor | None = None, **options: object) -> Colorization:
    """In float64 on a small network of three channels, as `tests_ranks.tiny`."""
    torch.manual_seed(0)
    backbone = TinyConv()
    backbone.layers[0] = nn.Conv2d(3, 6, 3)
    config = ColorizationConfig(name="colorization", **{"decoder_width": 4, "stride": 3, **options})
    method = Colorization(config, backbone, SHAPE)
    sample = rows(40, *SHAPE, seed=9).float() if sample is None else sample
    method.prepare(TrainStats(len(sample), sample, torch.arange(len(sample)), NORMALIZATION))
    return method.double()


def as_given(unit: Tensor) -> Tensor:
    """Images in 0..1 as `NORMALIZATION` feeds them."""
    mean, std = (torch.tensor(NORMALIZATION[name], dtype=unit.dtype).view(3, 1, 1) for name in ("mean", "std"))
    return (unit - mean) / std


def test_the_backbone_sees_lightness_alone_as_a_grey_image_would_come():
    method = made()
    unit = rows(4, *SHAPE, seed=0).sigmoid()
    seen = []
    method.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method(Batch([as_given(unit)], torch.arange(4), torch.arange(4)), "main")
    lightness = srgb_to_lab(unit)[:, :1] / 100
    torch.testing.assert_close(seen[0], as_given(lightness.expand(-1, 3, -1, -1)), rtol=1e-6, atol=1e-6)


def test_the_target_is_the_mean_colour_of_each_cell_in_the_decoders_order():
    method = made(uniform_share=1.0)
    unit = rows(4, *SHAPE, seed=0).sigmoid()
    logits = []
    method.decoder.register_forward_hook(lambda *given: logits.append(given[2]))
    loss = method(Batch([as_given(unit)], torch.arange(4), torch.arange(4)), "main")["loss"]
    lab = srgb_to_lab(unit)
    losses = []
    for image in range(4):
        for i in range(2):
            for j in range(2):
                cell = lab[image, 1:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((1, 2))
                nearest, soft = soft_encode(cell[None], gamut_bins().double())
                log_shares = logits[0][image, :, i, j].log_softmax(0)
                losses.append(-(soft * log_shares[nearest]).sum())
    torch.testing.assert_close(loss, sum(losses) / 16, rtol=1e-5, atol=1e-6)


def test_weights_follow_from_the_colours_of_train_rows():
    """Three images red and one blue: the bins around red have three quarters of all."""
    unit = torch.zeros(4, *SHAPE)
    unit[:3, 0] = unit[3, 2] = 0.9
    method = made(as_given(unit))
    share = torch.zeros(261)
    for colour, part in ((unit[0], 0.75), (unit[3], 0.25)):
        nearest, soft = soft_encode(srgb_to_lab(colour)[1:, 0, 0][None], gamut_bins())
        share[nearest[0]] += part * soft[0]
    torch.testing.assert_close(method.weights.float(), rebalance(share, 0.5), rtol=1e-4, atol=1e-4)
    rare, common = method.weights.max(), method.weights[share.argmax()]
    assert float(rare / common) > 20


def test_what_has_no_colour_is_refused_by_key():
    with pytest.raises(RequestError, match=r"pretrain\.method\.name: colorization needs images of 3 channels.* have 2"):
        Colorization(ColorizationConfig(name="colorization"), TinyConv(), (2, 6, 6))
    grey = rows(5, 1, 6, 6, seed=0).sigmoid().float().expand(-1, 3, -1, -1)
    with pytest.raises(RequestError, match=r"pretrain\.method\.name: .*the train images are grey"):
        made(as_given(grey))


@pytest.mark.parametrize(
    ("field", "value"), [("stride", 0), ("uniform_share", 0.0), ("uniform_share", 1.1), ("decoder_width", 0)]
)
def test_wrong_values_are_refused_by_key(field, value):
    with pytest.raises(ValidationError) as caught:
        ColorizationConfig(name="colorization", **{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def in_ranks() -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests_ranks, "tiny", lambda spec, **options: made(**options))
        patch.setattr(tests_ranks, "SHAPE", SHAPE)
        return one_step(SPEC)


def test_two_ranks_compute_the_loss_and_gradients_of_one(run_ranks):
    alone = in_ranks()
    assert {"buffer weights", "buffer scale", "buffer shift"} <= set(alone)
    assert_ranks_agree(alone, run_ranks(in_ranks))
