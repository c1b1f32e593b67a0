"""Whether the cluster can do the pretraining, asked before the first stage starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flows.ray_address import cluster_address
from flows.recipe import Recipe
from ssl_tasks.errors import RequestError
from ssl_tasks.training.config import PretrainConfig

if TYPE_CHECKING:
    from ssl_tasks.cluster.nodes import Node, Seen


def check_cluster(recipe: Recipe) -> None:
    """Refuse a cluster, or a machine, on which the pretraining would fail or wait for ever.

    Raises:
        RequestError: the first check that fails: reach and token, nodes, versions, store, /dev/shm, room.
    """
    from ssl_tasks.cluster.room import room

    config = getattr(recipe, "pretrain", None)
    if not isinstance(config, PretrainConfig):
        return
    address = cluster_address(recipe.ray_address or os.environ.get("RAY_ADDRESS"))
    found = seen(address, recipe.store, config) if address else [room([_this_machine(config)], config)]
    failed = [str(each) for each in found if each.level == "fail"]
    if failed:
        raise RequestError(
            failed[0] + (f" (and {len(failed) - 1} more: pretextflow doctor --ray)" if failed[1:] else "")
        )


def seen(address: str, store: str, config: PretrainConfig) -> list[Seen]:
    """What all nodes of the cluster at `address` are asked, for a training as `config` has it.

    Raises:
        RequestError: nothing answers there, or the cluster does not let this host in.
    """
    from ssl_tasks.cluster.checks import judge
    from ssl_tasks.cluster.look import ask
    from ssl_tasks.cluster.nodes import versions

    return judge(ask(address, store), config, here=versions())


def _this_machine(config: PretrainConfig) -> Node:
    """As a local Ray will declare it: CPUs and custom resources as needed, GPUs as there are."""
    import torch

    from ssl_tasks.cluster.nodes import Node
    from ssl_tasks.cluster.room import Demand

    return Node("this machine", {**Demand.of(config, use_gpu=False).total, "GPU": float(torch.cuda.device_count())})
