"""`least_rows` is what it says: the fewest with which every head's batch norm sees more than two rows."""

import pytest
import torch
from tests_ranks import rows, shape_for, tiny
from torch import nn

from ssl_tasks.backbones.energy import DenseRBM
from ssl_tasks.methods import names, spec
from ssl_tasks.methods.base import Batch

BACKBONES = {"rbm": lambda: DenseRBM((2, 6, 6), 5)}
SMALL = {
    "moco_v3": {"hidden_dim": 8},
    "byol": {"hidden_dim": 8},
    "jigsaw": {"num_permutations": 4, "grid": 2},
    "context_prediction": {"gap": 0, "jitter": 0},
    "deepcluster": {"num_clusters": 4},
}
APART = ("colorization", "clip", "siglip", "combined")
"""Take colours or captions and have no batch norm in their heads; and what asks its parts."""
METHODS = [name for name in names() if "image" in spec(name).modalities and name not in APART]


def seen(name: str, num_rows: int) -> list[int]:
    """Rows that each batch norm of a head is given in one forward pass of each phase."""
    backbone = BACKBONES[name]() if name in BACKBONES else None
    method = tiny(spec(name), backbone=backbone, **SMALL.get(name, {})).train()
    found = []
    for module in method.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.register_forward_pre_hook(lambda _module, inputs: found.append(len(inputs[0])))
            module.eval()  # a single row is refused otherwise
    count = len(method.views_for(method.config).policies)
    views = [rows(num_rows, *shape_for(spec(name)), seed=1 + number) for number in range(count)]
    for phase in method.phases:
        method(Batch(views, torch.arange(num_rows), torch.arange(num_rows)), phase)
    return found


@pytest.mark.parametrize("name", METHODS)
def test_batch_norms_of_heads_see_more_than_two_rows(name):
    least = spec(name).method.least_rows
    enough = seen(name, least)
    if least == 1:
        assert enough == []
    else:
        assert min(enough) > 2
        assert min(seen(name, least - 1)) <= 2


def test_of_two_rows_batch_norm_leaves_nothing_but_the_sign():
    norm, (first, second) = nn.BatchNorm1d(5, eps=1e-20, affine=False).double(), rows(2, 5, seed=0)
    two = norm(torch.stack([first, second]))
    torch.testing.assert_close(two[0], (first - second).sign())
    torch.testing.assert_close(norm(torch.stack([first, first + 0.1 * (second - first)])), two)
