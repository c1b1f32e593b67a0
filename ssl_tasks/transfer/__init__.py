"""The transfer strategies there are. Adding one is one file and one line in `STRATEGIES`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    from ssl_tasks.transfer.base import Strategy

STRATEGIES = {
    "linear_probe": "ssl_tasks.transfer.linear_probe",
    "knn": "ssl_tasks.transfer.knn",
    "ridge": "ssl_tasks.transfer.ridge",
    "linear_svm": "ssl_tasks.transfer.linear_svm",
    "rbf_svm": "ssl_tasks.transfer.rbf_svm",
    "random_forest": "ssl_tasks.transfer.random_forest",
    "gradient_boosting": "ssl_tasks.transfer.gradient_boosting",
    "mlp": "ssl_tasks.transfer.mlp",
    "fine_tune": "ssl_tasks.transfer.fine_tune",
    "last_layers": "ssl_tasks.transfer.last_layers",
    "gradual_unfreezing": "ssl_tasks.transfer.gradual_unfreezing",
    "layer_decay": "ssl_tasks.transfer.layer_decay",
    "lp_ft": "ssl_tasks.transfer.lp_ft",
    "lora": "ssl_tasks.transfer.lora",
    "reuse_stages": "ssl_tasks.transfer.reuse_stages",
    "net2net": "ssl_tasks.transfer.net2net",
    "distill_logits": "ssl_tasks.transfer.distill_logits",
    "distill_features": "ssl_tasks.transfer.distill_features",
    "surrogate": "ssl_tasks.transfer.surrogate",
    "coral": "ssl_tasks.transfer.coral",
    "deep_coral": "ssl_tasks.transfer.deep_coral",
    "mmd": "ssl_tasks.transfer.mmd",
    "dann": "ssl_tasks.transfer.dann",
    "adabn": "ssl_tasks.transfer.adabn",
    "retrieval": "ssl_tasks.transfer.retrieval",
    "segmentation": "ssl_tasks.transfer.segmentation_head",
    "boxes": "ssl_tasks.transfer.box_head",
    "concatenate": "ssl_tasks.transfer.concatenate",
    "select_features": "ssl_tasks.transfer.select_features",
    "weighted_encoders": "ssl_tasks.transfer.weighted_encoders",
    "best_encoder": "ssl_tasks.transfer.best_encoder",
    "uniform_soup": "ssl_tasks.transfer.uniform_soup",
    "greedy_soup": "ssl_tasks.transfer.greedy_soup",
    "best_tuned": "ssl_tasks.transfer.best_tuned",
    "multi_task": "ssl_tasks.transfer.multi_task",
    "from_scratch": "ssl_tasks.transfer.from_scratch",
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
