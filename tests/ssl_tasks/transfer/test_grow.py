from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tests_digits as digits
import torch
from torch import nn

from ssl_tasks.backbones import build_backbone
from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import Blueprint
from ssl_tasks.transfer.networks.grow import grow, identity_block, refusal, widen
from ssl_tasks.transfer.networks.layers import depths
from ssl_tasks.transfer.networks.students import size_of
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.strategies import net2net, reuse_stages

RESNET = "test_resnet"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_alike(name: str, side: int) -> nn.Module:
    """A ResNet whose norms are as after training: timm starts the last of each block at zero, which hides errors."""
    network = build_backbone(name, modality="image", input_shape=(1, side, side), seed=0)
    random = generator(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=random)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=random)
            nn.init.normal_(module.running_mean, 0.0, 0.2, generator=random)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=random)
    return network.eval()


@pytest.mark.parametrize("name", ["resnet10t", RESNET])  # basic blocks, and bottlenecks among them
@pytest.mark.parametrize(("width", "depth"), [(1.5, 0), (1.0, 1), (2.3, 2)])
def test_growing_changes_nothing_at_the_start(name: str, width: float, depth: int) -> None:
    network = trained_alike(name, 16)
    images = torch.randn(4, 1, 16, 16, generator=generator(2))
    grown = grow(network, width, depth, generator())
    with torch.no_grad():
        expected, found = network(images), grown(images)
    assert expected.abs().mean() > 0.01
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    assert size_of(grown) > size_of(network)


def test_the_original_is_left_alone() -> None:
    network = trained_alike(RESNET, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    grow(network, 2.0, 1, generator())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_widening_is_the_papers() -> None:
    """Equations 3 and 4: U[:, j] = W[:, g(j)], and the weights that follow sum over copies to what they were."""
    conv, norm, following = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
    old = conv.weight.detach().clone(), following.weight.detach().clone()
    widen(conv, norm, following, 7, generator())
    assert conv.weight.shape == (7, 2, 3, 3)
    source = [next(k for k in range(3) if torch.equal(conv.weight[j], old[0][k])) for j in range(7)]
    assert source[:3] == [0, 1, 2]
    summed = torch.zeros_like(old[1])
    for j, k in enumerate(source):
        summed[:, k] += following.weight.detach()[:, j]
    torch.testing.assert_close(summed, old[1])
    copies = [j for j, k in enumerate(source) if k == source[-1]]
    assert len({round(following.weight[0, j].item(), 6) for j in copies}) == len(copies) > 1


def test_copies_go_ways_of_their_own() -> None:
    """With equal shares copies would get equal gradients for ever."""
    grown = grow(trained_alike(RESNET, 8), 2.0, 0, generator()).train()
    grown(torch.randn(8, 1, 8, 8, generator=generator(3))).square().mean().backward()
    grads = grown.layer4[0].conv1.weight.grad.flatten(1)
    assert len(torch.unique(grads, dim=0)) == len(grads)


def test_a_new_block_is_an_identity_that_can_learn() -> None:
    block = identity_block(trained_alike(RESNET, 8).layer4[0], generator())
    rows = torch.rand(2, 96, 3, 3, generator=generator(4))
    out = block(rows.clone())
    assert torch.equal(out, rows)
    out.square().sum().backward()
    assert block.bn2.weight.grad.abs().max() > 0


def test_net2net_learns_and_two_fits_are_equal() -> None:
    options = {"tune": {"steps": 3, "learning_rates": [1e-3]}, "net2net": {"width": 1.25}}
    task = digits.task(RESNET, labelled=16, val=1, **options)
    first, second = net2net.fit(task), net2net.fit(task)
    assert np.array_equal(first.scores, second.scores)
    assert not np.array_equal(first.scores, net2net.fit(dataclasses.replace(task, seed=1)).scores)
    assert first.chosen["change_at_start"] < 1e-5


def test_the_change_at_the_start_is_seen() -> None:
    network = trained_alike(RESNET, 8)
    images = torch.randn(4, 1, 8, 8, generator=generator(2))
    grown = grow(network, 1.5, 1, generator())
    assert 0 < net2net.change(network, grown, images) < 1e-5
    with torch.no_grad():
        network.layer4[0].bn2.weight.mul_(1.01)
    assert net2net.change(network, grown, images) > 1e-3


@pytest.mark.parametrize("name", ["test_vit", digits.MLP])
def test_what_is_no_resnet_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"transfer\.strategies: net2net .* is no ResNet"):
        net2net.check(Blueprint(digits.build(name, 0), Options()))
    net2net.check(Blueprint(digits.build(RESNET, 0), Options()))


def test_grouped_convolutions_are_refused() -> None:
    network = build_backbone("resnext26ts", modality="image", input_shape=(1, 32, 32), seed=0)
    assert refusal(network) is not None


@pytest.mark.parametrize(("name", "stages"), [(RESNET, 5), ("test_vit", 7), (digits.MLP, 3)])
def test_the_first_stages_are_kept_and_the_others_fresh(name: str, stages: int) -> None:
    source, fresh, untouched = digits.encoder(name), digits.build(name, 5), digits.build(name, 5).state_dict()
    reuse_stages.keep(source, fresh, 2)
    depth_of = depths(source, coarse=True)
    for key, value in fresh.named_parameters():
        assert torch.equal(value, (source.state_dict() if depth_of[key] < 2 else untouched)[key]), key
    if name == RESNET:
        state = fresh.state_dict()
        assert torch.equal(state["layer1.0.bn1.running_mean"], source.state_dict()["layer1.0.bn1.running_mean"])
        assert torch.equal(state["layer2.0.bn1.running_mean"], untouched["layer2.0.bn1.running_mean"])
    options = Options.model_validate({"tune": {"first_stages": stages}})
    with pytest.raises(RequestError, match=rf"transfer\.tune\.first_stages: {stages} is too many"):
        reuse_stages.check(Blueprint(source, options))


def test_kept_stages_are_worth_more_than_fresh_ones() -> None:
    few = {"scratch": {"steps": 40}, "tune": {"learning_rates": [3e-3], "first_stages": 2}}
    task = digits.task(digits.MLP, labelled=40, **few)
    assert task.context is not None
    fresh = dataclasses.replace(task.context, networks={"trained": lambda: digits.build(digits.MLP, 9)})
    kept, alone = reuse_stages.fit(task), reuse_stages.fit(dataclasses.replace(task, context=fresh))
    assert digits.accuracy(kept.scores) > digits.accuracy(alone.scores) + 0.03
