"""Two processes compute what one does on the whole batch: gathered gradients, synchronized batch norm."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ssl_tasks.training.collectives import (
    CpuSyncBatchNorm,
    CudaSyncBatchNorm,
    convert_sync_batchnorm,
    gather_with_grad,
    rank,
    world_size,
)

SHAPES = [(8, 3), (6, 5, 4), (4, 6, 5, 5)]


class FusedNormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: norm, dropout and activation in one module."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.drop = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coupled_loss(local: Tensor, everything: Tensor, first: int) -> Tensor:
    """A loss of this rank's rows that depends on all rows, differently for each pair."""
    weight = torch.arange(first, first + len(local), dtype=local.dtype)[:, None] + 1
    return ((local @ everything.T).sin() * weight).sum()


def norms() -> dict[str, nn.Module]:
    affine, cumulative = nn.BatchNorm1d(3).double(), nn.BatchNorm1d(5, momentum=None).double()
    with torch.no_grad():
        affine.weight.copy_(numbers(3, seed=8))
        affine.bias.copy_(numbers(3, seed=9))
    return {
        "affine": affine,
        "cumulative": cumulative,
        "plain": nn.BatchNorm2d(6, affine=False).double(),
        "untracked": nn.BatchNorm2d(6, track_running_stats=False).double(),
        "fused": FusedNormAct(6).double(),
    }


def shape_of(name: str) -> tuple[int, ...]:
    return {"affine": SHAPES[0], "cumulative": SHAPES[1]}.get(name, SHAPES[2])


def run_norm(name: str, norm: nn.Module, rows: slice) -> dict[str, Tensor]:
    """Two training steps and one evaluation on `rows` of a batch that is far from centred."""
    x = (3 * numbers(*shape_of(name)) + 20)[rows].requires_grad_()
    target = numbers(*shape_of(name), seed=1)[rows]
    norm(x.detach() + 1)
    y = norm(x)
    y.mul(target).sum().backward()
    result = {"y": y.detach(), "grad_x": x.grad, "eval": norm.eval()(x).detach()}
    result |= {f"grad_{key}": p.grad for key, p in norm.named_parameters()}
    return result | {key: value.clone() for key, value in norm.named_buffers()}


def in_two_ranks() -> dict[str, dict[str, Tensor]]:
    """What each rank computes on its half."""
    results = {}
    for name, norm in norms().items():
        half = shape_of(name)[0] // 2
        synced = convert_sync_batchnorm(norm, "cpu")
        assert isinstance(synced, CpuSyncBatchNorm)
        results[name] = run_norm(name, synced, slice(rank() * half, (rank() + 1) * half))
    x = numbers(6, 4)[rank() * 3 : rank() * 3 + 3].requires_grad_()
    gathered = gather_with_grad(x)
    coupled_loss(x, gathered, rank() * 3).backward()
    results["gather"] = {"rows": gathered.detach(), "grad": x.grad}
    return results


def test_two_ranks_compute_what_one_does(run_ranks):
    first, second = run_ranks(in_two_ranks)
    for name, norm in norms().items():
        whole = run_norm(name, norm, slice(None))
        for key, expected in whole.items():
            if key in ("y", "grad_x", "eval") and not (name == "untracked" and key == "eval"):
                found = torch.cat([first[name][key], second[name][key]])
            elif key.startswith("grad_"):
                found = first[name][key] + second[name][key]
            elif key == "eval":
                continue  # without running statistics evaluation normalizes each rank's own batch
            else:
                assert torch.equal(first[name][key], second[name][key]), (name, key)
                found = first[name][key]
            torch.testing.assert_close(
                found, expected, rtol=1e-10, atol=1e-10, msg=lambda m, at=(name, key): f"{at} {m}"
            )

    x = numbers(6, 4).requires_grad_()
    coupled_loss(x, x, 0).backward()
    assert torch.equal(first["gather"]["rows"], x.detach())
    found = torch.cat([first["gather"]["grad"], second["gather"]["grad"]])
    torch.testing.assert_close(found, x.grad, rtol=1e-12, atol=1e-12)


def test_one_rank_changes_nothing():
    x = numbers(3, 2)
    assert world_size() == 1
    assert rank() == 0
    assert gather_with_grad(x) is x
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    norm = net[1]
    assert convert_sync_batchnorm(net, "cpu") is net
    assert net[1] is norm


@pytest.mark.parametrize(("device_type", "kind"), [("cpu", CpuSyncBatchNorm), ("cuda", CudaSyncBatchNorm)])
def test_conversion_keeps_names_parameters_and_activations(device_type, kind):
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Sequential(FusedNormAct(2), nn.BatchNorm2d(2, eps=0.5)), nn.GroupNorm(1, 2)
    )
    net[1][1].eval()
    expected, weights = copy.deepcopy(net.state_dict()), list(net.parameters())
    converted = convert_sync_batchnorm(net, device_type, num_ranks=2)
    assert [type(norm) for norm in converted[1]] == [kind, kind]
    assert all(a is b for a, b in zip(converted.parameters(), weights, strict=True))
    assert list(converted.state_dict()) == list(expected)
    assert isinstance(converted[1][0].act, nn.ReLU)
    assert converted[1][1].eps == 0.5
    assert converted[1][0].training
    assert not converted[1][1].training
    assert convert_sync_batchnorm(converted, device_type, num_ranks=2)[1][0] is converted[1][0]


def test_a_converted_network_without_a_group_is_the_plain_one():
    fused, x = FusedNormAct(2), torch.randn(4, 2, 3, 3)
    expected = copy.deepcopy(fused)(x)
    assert torch.equal(convert_sync_batchnorm(fused, "cpu", num_ranks=2)(x), expected)
