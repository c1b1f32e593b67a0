"""Part of the encoder reused: its first stages with their weights, fresh weights above, and all of it is trained.

Which stages are general and which are not is what Yosinski et al. (arXiv 1411.1792, section 2) measure this way: their
networks AnB+ keep the first n layers of a network trained on A and learn the others, and these, on B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.transfer.base import ALL_FITTED, Blueprint, Prediction, Strategy, Task
from ssl_tasks.transfer.networks.layers import depths, num_layers
from ssl_tasks.transfer.networks.training import Start
from ssl_tasks.transfer.networks.tuning import context_of, tune

if TYPE_CHECKING:
    from torch import nn


def fit(task: Task) -> Prediction:
    """Keep `transfer.tune.first_stages` stages, begin afresh above, and train everything."""
    context = context_of(task)
    count = context.options.tune.first_stages

    def start(network: nn.Sequential) -> Start:
        fresh = context.build(task.seed)
        keep(network[0], fresh, count)
        network[0] = fresh
        return Start(network)

    return tune(task, start)


def keep(source: nn.Module, target: nn.Module, count: int) -> None:
    """Copy parameters, and what modules beside them keep, of the first `count` stages, in place."""
    kept = {name for name, depth in depths(source, coarse=True).items() if depth < count}
    modules = {name.rpartition(".")[0] for name in kept} - {""}
    state = target.state_dict()
    for name, value in source.state_dict().items():
        if name in kept or name.rpartition(".")[0] in modules:
            state[name].copy_(value)


def check(blueprint: Blueprint) -> None:
    """Refuse to keep all stages."""
    count, there = blueprint.options.tune.first_stages, num_layers(depths(blueprint.backbone, coarse=True))
    if count >= there:
        raise RequestError(
            f"transfer.tune.first_stages: {count} is too many, the network has {there} stages, the stem among them; to "
            "keep all of them list fine_tune"
        )


STRATEGY = Strategy(
    "reuse_stages",
    "the first stages, the others trained afresh",
    fit,
    needs="payload",
    tasks=ALL_FITTED,
    untrained="from_scratch",
    seeded=True,
    check=check,
)
