"""Make a ResNet wider and deeper without changing what it computes.

Chen, Goodfellow and Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer" (arXiv 1511.05641, section 2).

    grown = grow(resnet, width=1.5, depth=1, generator=torch.Generator().manual_seed(0))
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeAlias

import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

Block: TypeAlias = BasicBlock | Bottleneck
STAGES = ("layer1", "layer2", "layer3", "layer4")


def refusal(backbone: nn.Module) -> str | None:
    """Why `grow` cannot take this network, None where it can."""
    if not isinstance(backbone, ResNet):
        return f"{type(backbone).__name__} is no ResNet"
    for block in _blocks(backbone):
        if not isinstance(block, Block):
            return f"it has blocks of kind {type(block).__name__}"
        if any(conv.groups != 1 for conv, _, _ in _inner(block)) or _last_conv(block).groups != 1:
            return "its convolutions are grouped"
        if not isinstance(block.aa, nn.Identity) or not isinstance(_last_act(block), nn.ReLU):
            return "its blocks are not convolutions, batch norms and ReLUs alone"
    return None


def grow(backbone: nn.Module, width: float, depth: int, generator: torch.Generator) -> nn.Module:
    """A larger copy that gives the same features.

    Args:
        backbone: one without a `refusal`.
        width: factor of the channels inside each block; those between blocks stay, for the shortcuts' sake.
        depth: blocks that are added at the end of each stage.
    """
    grown = copy.deepcopy(backbone)
    for block in _blocks(grown):
        pairs = _inner(block)
        for conv, norm, following in pairs:
            widen(conv, norm, following, round(width * conv.out_channels), generator)
    for name in STAGES:
        stage = getattr(grown, name)
        for _ in range(depth):
            stage.append(identity_block(stage[-1], generator))
    return grown


def widen(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, following: nn.Conv2d, channels: int, generator: torch.Generator
) -> None:
    """Net2WiderNet (section 2.2, equations 3 and 4): give `conv` more outputs, in place.

    New channels are copies of random ones, and what follows shares the weight of a channel out among its copies. The
    shares are random where the paper divides evenly and adds noise: that tells copies apart and changes nothing.
    """
    old = conv.out_channels
    extra = torch.randint(old, (channels - old,), generator=generator)
    source = torch.cat([torch.arange(old), extra])
    parts = 0.5 + torch.rand(channels, generator=generator)
    share = parts / torch.zeros(old).index_add_(0, source, parts)[source]
    with torch.no_grad():
        _replace(conv, "weight", conv.weight[source])
        if conv.bias is not None:
            _replace(conv, "bias", conv.bias[source])
        for name in ("weight", "bias"):
            _replace(norm, name, getattr(norm, name)[source])
        for name in ("running_mean", "running_var"):
            setattr(norm, name, getattr(norm, name)[source].clone())
        _replace(following, "weight", following.weight[:, source] * share[None, :, None, None])
    conv.out_channels = norm.num_features = following.in_channels = channels


def identity_block(last: Block, generator: torch.Generator) -> nn.Module:
    """Net2DeeperNet (section 2.3) for residual networks: a block whose branch gives zero, after another one.

    What comes out of `last` is no less than 0, so that the ReLU behind the sum leaves it alone.
    """
    outer = _last_conv(last).out_channels
    block: nn.Module = type(last)(outer, outer // type(last).expansion)
    for conv in (module for module in block.modules() if isinstance(module, nn.Conv2d)):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    nn.init.zeros_(_norms(block)[-1].weight)
    return block.train(last.training)


def _blocks(backbone: nn.Module) -> Iterator[Block]:
    for name in STAGES:
        yield from getattr(backbone, name)


def _inner(block: Block) -> list[tuple[nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]]:
    """Each convolution whose outputs only the next one sees, its norm, and that next one."""
    convs, norms = _convs(block), _norms(block)
    return list(zip(convs[:-1], norms[:-1], convs[1:], strict=True))


def _convs(block: Block) -> list[nn.Conv2d]:
    return [block.conv1, block.conv2] + ([block.conv3] if isinstance(block, Bottleneck) else [])


def _norms(block: Block) -> list[nn.BatchNorm2d]:
    return [block.bn1, block.bn2] + ([block.bn3] if isinstance(block, Bottleneck) else [])


def _last_conv(block: Block) -> nn.Conv2d:
    return _convs(block)[-1]


def _last_act(block: Block) -> nn.Module:
    act: nn.Module = block.act3 if isinstance(block, Bottleneck) else block.act2
    return act


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    setattr(module, name, nn.Parameter(value.clone()))
