"""Checks across sections, made as soon as what they need is known and before anything expensive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.preflight.labels import (
    require_domain_rows,
    require_domains,
    require_labels,
    require_stored_targets,
    require_targets,
    require_test_labels,
    require_usable_labels,
)
from flows.preflight.networks import (
    require_fitting_encoder,
    require_fitting_encoders,
    require_fitting_method,
    require_fitting_strategies,
    require_rows,
    require_strategies_of_encoder,
    require_used_policies,
)
from flows.recipe import Recipe
from ssl_tasks.artifact import Artifact

if TYPE_CHECKING:
    from flows.plan import Planned


def check_request(recipe: Recipe, to_run: Sequence[Planned]) -> None:
    """Refuse what no stage that is to run could do, before any does; of stages that are cached nothing is asked."""
    for entry in to_run:
        if entry.stage.check:
            entry.stage.check(entry.config)
    if any(entry.name == "pretrain" for entry in to_run):
        require_used_policies(recipe)
        require_fitting_method(recipe)
    if any(entry.name == "transfer" for entry in to_run):
        require_fitting_encoders(recipe)
        require_fitting_strategies(recipe)
    if any(entry.name == "normalize" for entry in to_run):
        require_fitting_encoder(recipe)


@dataclass(frozen=True)
class Check:
    """What a stage that is to run needs of an earlier one."""

    after: str
    """Name of the stage that is read."""
    stage: str
    """Name of the stage that would fail."""
    check: Callable[[Recipe, Artifact], None]


CHECKS = (
    Check("adopt", "transfer", require_strategies_of_encoder),
    Check("ingest", "transfer", require_labels),
    Check("normalize", "transfer", require_stored_targets),
    Check("ingest", "transfer", require_domains),
    Check("normalize", "transfer", require_fitting_encoders),
    Check("normalize", "transfer", require_fitting_strategies),
    Check("split", "pretrain", require_rows),
    Check("normalize", "pretrain", require_fitting_method),
    Check("split", "transfer", require_test_labels),
    Check("split", "transfer", require_usable_labels),
    Check("split", "transfer", require_targets),
    Check("split", "transfer", require_domain_rows),
)
