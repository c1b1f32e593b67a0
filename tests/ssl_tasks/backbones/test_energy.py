"""Backbones of Boltzmann machines: names, features against loops, and that both directions are one energy."""

import pytest
import torch
from torch import nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError

CASES = [
    ("rbm:5", "image", (2, 6, 4)),
    ("rbm:5", "tabular", (7,)),
    ("crbm:3x2", "image", (2, 6, 4)),
    ("crbm:3x4", "image", (1, 6, 4)),
]


def build(name: str, modality: str, shape: tuple[int, ...], **options) -> nn.Module:
    return build_backbone(name, modality=modality, input_shape=shape, **options)


@pytest.mark.parametrize(("name", "modality", "shape"), CASES)
def test_features_are_as_many_as_they_say_and_probabilities(name, modality, shape):
    backbone = build(name, modality, shape)
    features = backbone(torch.randn(200, *shape, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (200, backbone.num_features)
    assert ((features > 0) & (features < 1)).all()
    assert features.std(dim=0).min() > 0.03  # rows do not start out alike


@pytest.mark.parametrize(("name", "modality", "shape"), CASES)
def test_drive_and_paint_are_the_two_directions_of_one_energy(name, modality, shape):
    """h . (c + v W) = h . c + v . (h W) for any v and h."""
    backbone = build(name, modality, shape).double()
    nn.init.normal_(backbone.hidden_bias)
    v = torch.randn(3, *shape, dtype=torch.float64)
    drive = backbone.drive(v)
    h = torch.randn_like(drive)
    bias = backbone.drive(torch.zeros_like(v))
    there = (h * drive).flatten(1).sum(dim=1)
    back = (h * bias).flatten(1).sum(dim=1) + (v * backbone.paint(h)).flatten(1).sum(dim=1)
    torch.testing.assert_close(there, back)


def test_dense_features_unit_by_unit():
    backbone = build("rbm:3", "image", (2, 2, 2)).double()
    nn.init.normal_(backbone.hidden_bias)
    v = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    for j, feature in enumerate(backbone(v)[0]):
        total = backbone.hidden_bias[j] + sum(w * x for w, x in zip(backbone.weight[j], v.flatten(), strict=True))
        torch.testing.assert_close(feature, 1 / (1 + torch.exp(-total)))


def test_convolutional_features_are_averages_over_cells():
    backbone = build("crbm:2x3", "image", (1, 10, 8))
    assert backbone.num_features == 2 * 4 * 4
    maps = backbone.drive(torch.randn(1, 1, 10, 8, generator=torch.Generator().manual_seed(0)))
    assert maps.shape == (1, 2, 8, 6)
    features = backbone(torch.randn(1, 1, 10, 8, generator=torch.Generator().manual_seed(0))).view(2, 4, 4)
    torch.testing.assert_close(features[1, 2, 0], maps[0, 1, 4:6, 0:2].sigmoid().mean())
    assert build("crbm:2x3", "image", (1, 4, 3)).num_features == 2 * 2 * 1


def test_what_units_are_told_at_the_start_does_not_depend_on_the_number_of_inputs():
    for name, modality, shape in (("rbm:400", "tabular", (5,)), ("rbm:400", "image", (3, 32, 32))):
        drive = build(name, modality, shape).drive(torch.randn(200, *shape))
        assert drive.std().item() == pytest.approx(0.3, rel=0.15)


def test_weights_follow_from_the_seed():
    first, same, other = (build("crbm:2x3", "image", (1, 8, 8), seed=seed).weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["rbm", "rbm:0", "rbm:8x2", "crbm", "crbm:8", "crbm:0x3", "crbm:8x0"])
def test_names_that_do_not_exist_are_refused(name):
    message = rf"pretrain\.backbone: no backbone '{name}'; there is rbm:<hidden> .*, and crbm:<filters>x<kernel>"
    with pytest.raises(RequestError, match=message):
        build(name, "image", (1, 8, 8))


def test_tables_have_no_convolutional_machine():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: no backbone 'crbm:8x3'; .* for tables"):
        build("crbm:8x3", "tabular", (8,))


def test_sizes_and_stems_that_do_not_fit_are_refused_by_key():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: crbm:8x7 takes images of at least 7 x 7 px"):
        build("crbm:8x7", "image", (1, 6, 9))
    with pytest.raises(RequestError, match=r"augment\.size: crbm:8x7 takes images of at least 7 x 7 px"):
        build("crbm:8x7", "image", (1, 9, 9), view_sides={"augment.size": 6})
    with pytest.raises(RequestError, match=r"augment\.size: rbm:8 takes images of 9 x 6 px, .* no views of 6 x 6 px"):
        build("rbm:8", "image", (1, 6, 9), view_sides={"augment.size": 6})
    with pytest.raises(RequestError, match=r"pretrain\.stem: rbm:8 has no small stem"):
        build("rbm:8", "image", (1, 8, 8), stem="small")
    build("rbm:8", "image", (1, 8, 8), view_sides={"augment.size": 8})
