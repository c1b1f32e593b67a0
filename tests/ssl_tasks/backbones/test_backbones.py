"""Backbones: widths, stems, seeds, and names that do not exist."""

import pytest
import torch
from torch import nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError

IMAGES = [
    ("test_resnet", (3, 8, 8)),
    ("test_vit", (1, 32, 32)),
    ("test_convnext", (3, 64, 64)),
    ("mobilenetv3_small_050", (3, 96, 96)),
]


def image(name: str, shape: tuple[int, ...] = (3, 16, 16), **options) -> nn.Module:
    return build_backbone(name, modality="image", input_shape=shape, **options)


@pytest.mark.parametrize(("name", "shape"), IMAGES, ids=[name for name, _ in IMAGES])
def test_image_backbones_give_as_many_features_as_they_say(name, shape):
    backbone = image(name, shape)
    assert backbone(torch.randn(2, *shape)).shape == (2, backbone.num_features)
    assert backbone.training


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "resnet10t"])
def test_small_stem_keeps_the_resolution(name):
    shapes = {}
    for stem in ("small", "standard", "auto"):
        backbone = image(name, stem=stem).eval()
        backbone.layer1.register_forward_pre_hook(lambda _, x, stem=stem: shapes.update({stem: tuple(x[0].shape[2:])}))
        backbone(torch.randn(1, 3, 16, 16))
    assert shapes == {"small": (16, 16), "standard": (4, 4), "auto": (16, 16)}
    assert image(name, (3, 65, 65)).maxpool.kernel_size == 3


def test_small_stem_of_a_resnet_is_a_3x3_convolution():
    conv = image("resnet18", (1, 16, 16)).conv1
    assert (conv.in_channels, conv.kernel_size, conv.stride, conv.padding) == (1, (3, 3), (1, 1), (1, 1))


def test_a_stem_that_is_not_there_or_unknown_is_refused():
    with pytest.raises(RequestError, match=r"pretrain\.stem: test_convnext has no small stem"):
        image("test_convnext", (3, 32, 32), stem="small")
    with pytest.raises(RequestError, match=r"pretrain\.stem: 'tiny' is not one of auto, small, standard"):
        image("test_resnet", stem="tiny")


@pytest.mark.parametrize(
    ("name", "modality", "shape"), [("test_resnet", "image", (3, 8, 8)), ("mlp:8x2", "tabular", (5,))]
)
def test_weights_follow_from_the_seed_and_disturb_no_generator(name, modality, shape):
    def weights(seed: int) -> torch.Tensor:
        backbone = build_backbone(name, modality=modality, input_shape=shape, seed=seed)
        return nn.utils.parameters_to_vector(backbone.parameters())

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: timm has no model 'resnet81'.*did you mean.*resnet"):
        image("resnet81")
    for name in ("mlp:0x3", "mlp:256", "resnet18", "mlp256x4"):
        with pytest.raises(RequestError, match=rf"pretrain\.backbone: no backbone '{name}' for tables"):
            build_backbone(name, modality="tabular", input_shape=(4,))
    with pytest.raises(RequestError, match=r"pretrain\.backbone: there are no backbones for modality 'smell'"):
        build_backbone("mlp", modality="smell", input_shape=(4,))


def test_an_input_that_the_network_cannot_take_is_refused():
    with pytest.raises(RequestError, match=r"pretrain\.backbone: test_vit cannot take inputs of shape \(3, 4, 4\)"):
        image("test_vit", (3, 4, 4), stem="standard")


def test_a_network_of_fixed_size_takes_views_of_others_and_leaves_equal_weights():
    plain, views = (
        image("vit_tiny_patch16_224", (3, 64, 64), view_sides=sides) for sides in ({}, {"augment.size": 32})
    )
    assert views(torch.randn(2, 3, 32, 32)).shape == (2, views.num_features)
    assert plain.state_dict().keys() == views.state_dict().keys()
    inputs = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(plain.eval()(inputs), views.eval()(inputs))
    plain.load_state_dict(views.state_dict())


@pytest.mark.parametrize("key", ["augment.size", "augment.policies.local.size"])
def test_a_view_that_the_network_cannot_take_is_refused(key):
    message = rf"{key}: mixer_s32_224 takes images of 96 x 64 px, .* no views of 32 x 32 px".replace(".", r"\.", 1)
    with pytest.raises(RequestError, match=message):
        image("mixer_s32_224", (3, 64, 96), view_sides={key: 32})
    image("mixer_s32_224", (3, 64, 64), view_sides={key: 64})


def test_mlp_is_four_layers_of_256_where_nothing_else_is_said():
    default = build_backbone("mlp", modality="tabular", input_shape=(30,))
    widths = [(m.in_features, m.out_features) for m in default.modules() if isinstance(m, nn.Linear)]
    assert widths == [(30, 256), (256, 256), (256, 256), (256, 256)]
    assert build_backbone("mlp:64x2", modality="tabular", input_shape=(30,)).num_features == 64
    features = default(torch.randn(500, 30, generator=torch.Generator().manual_seed(0))).detach()
    assert 0.3 < float(features.square().mean()) < 3  # the signal neither dies nor explodes on its way
