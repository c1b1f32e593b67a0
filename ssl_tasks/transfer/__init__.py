"""The transfer strategies there are. Adding one is one file and one line in `STRATEGIES`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    from ssl_tasks.transfer.base import Strategy

STRATEGIES = {
    "linear_probe": "ssl_tasks.transfer.strategies.linear_probe",
    "knn": "ssl_tasks.transfer.strategies.knn",
    "ridge": "ssl_tasks.transfer.strategies.ridge",
    "linear_svm": "ssl_tasks.transfer.strategies.linear_svm",
    "rbf_svm": "ssl_tasks.transfer.strategies.rbf_svm",
    "random_forest": "ssl_tasks.transfer.strategies.random_forest",
    "gradient_boosting": "ssl_tasks.transfer.strategies.gradient_boosting",
    "mlp": "ssl_tasks.transfer.strategies.mlp",
    "fine_tune": "ssl_tasks.transfer.strategies.fine_tune",
    "last_layers": "ssl_tasks.transfer.strategies.last_layers",
    "gradual_unfreezing": "ssl_tasks.transfer.strategies.gradual_unfreezing",
    "layer_decay": "ssl_tasks.transfer.strategies.layer_decay",
    "lp_ft": "ssl_tasks.transfer.strategies.lp_ft",
    "lora": "ssl_tasks.transfer.strategies.lora",
    "reuse_stages": "ssl_tasks.transfer.strategies.reuse_stages",
    "net2net": "ssl_tasks.transfer.strategies.net2net",
    "distill_logits": "ssl_tasks.transfer.strategies.distill_logits",
    "distill_features": "ssl_tasks.transfer.strategies.distill_features",
    "surrogate": "ssl_tasks.transfer.strategies.surrogate",
    "coral": "ssl_tasks.transfer.strategies.coral",
    "deep_coral": "ssl_tasks.transfer.strategies.deep_coral",
    "mmd": "ssl_tasks.transfer.strategies.mmd",
    "dann": "ssl_tasks.transfer.strategies.dann",
    "adabn": "ssl_tasks.transfer.strategies.adabn",
    "retrieval": "ssl_tasks.transfer.strategies.retrieval",
    "segmentation": "ssl_tasks.transfer.strategies.segmentation_head",
    "boxes": "ssl_tasks.transfer.strategies.box_head",
    "concatenate": "ssl_tasks.transfer.strategies.concatenate",
    "select_features": "ssl_tasks.transfer.strategies.select_features",
    "weighted_encoders": "ssl_tasks.transfer.strategies.weighted_encoders",
    "best_encoder": "ssl_tasks.transfer.strategies.best_encoder",
    "uniform_soup": "ssl_tasks.transfer.strategies.uniform_soup",
    "greedy_soup": "ssl_tasks.transfer.strategies.greedy_soup",
    "best_tuned": "ssl_tasks.transfer.strategies.best_tuned",
    "multi_task": "ssl_tasks.transfer.strategies.multi_task",
    "from_scratch": "ssl_tasks.transfer.strategies.from_scratch",
}
"""Name and module; each module's `STRATEGY` is loaded when somebody asks."""

BASELINE = "from_scratch"
"""Runs whenever another strategy does, and is no way to reuse an encoder."""


def names() -> list[str]:
    """The strategies that a recipe may list."""
    return sorted(name for name in STRATEGIES if name != BASELINE)


def names_for(task: str) -> list[str]:
    """Those of them that can do a task."""
    return [name for name in names() if task in strategy(name).tasks]


def with_counterparts(listed: Sequence[str]) -> tuple[str, ...]:
    """The strategies that a recipe lists, and after them those that they are compared with."""
    counterparts = (strategy(name).counterpart for name in listed)
    return tuple(dict.fromkeys([*listed, *(name for name in counterparts if name)]))


def any_joint(listed: Sequence[str]) -> bool:
    """Whether one of them learns further kinds of targets than the one that is predicted."""
    return any(strategy(name).joint for name in listed)


def strategy(name: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    if name not in STRATEGIES:
        raise RequestError(f"no transfer strategy {name!r}; there are {', '.join(names())}")
    found: Strategy = importlib.import_module(STRATEGIES[name]).STRATEGY
    return found
