"""`least_rows` is what it says: with one row fewer a head's batch norm refuses, or nothing below it learns."""

import pytest
import torch
from tests_ranks import rows, shape_for, tiny

from ssl_tasks.methods import names, spec
from ssl_tasks.methods.base import Batch

SMALL = {"simsiam": {"out_dim": 64}, "swav": {"num_prototypes": 4}}
METHODS = [name for name in names() if "image" in spec(name).modalities]


def slope(name: str, num_rows: int) -> float:
    """Largest gradient that reaches a weight of the backbone."""
    options = SMALL.get(name, {})
    method = tiny(spec(name), **options).train()
    count = len(method.views_for(method.config).policies)
    views = [rows(num_rows, *shape_for(spec(name)), seed=1 + number) for number in range(count)]
    method(Batch(views, torch.arange(num_rows), torch.arange(num_rows)), "main")["loss"].backward()
    return max(float(p.grad.abs().max()) for p in method.backbone.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", [name for name in METHODS if spec(name).method.least_rows > 1])
def test_with_one_row_fewer_nothing_is_learned(name):
    least = spec(name).method.least_rows
    enough = slope(name, least)
    assert enough > 1e-4
    assert slope(name, least - 1) < 0.05 * enough
