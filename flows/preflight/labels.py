"""What the labels, targets and domains of the data must be like for what `transfer` is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.recipe import Recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import DOMAIN, LABEL, ROWS_FILE, SPLIT, SPLITS_FILE, TEST
from ssl_tasks.transfer import data, dense_targets, domains
from ssl_tasks.transfer.targets import (
    CLASSIFICATION,
    DENSE,
    LOCALIZATION,
    MULTI_LABEL,
    REGRESSION,
    SEGMENTATION,
    WITHOUT,
)

if TYPE_CHECKING:
    from ssl_tasks.transfer.options import DomainsConfig

NEEDS = {
    MULTI_LABEL: ("multi_labelled", "lists of labels", "name their column with ingest.labels_column or class_columns"),
    REGRESSION: ("numbered", "numbers", "name their column with ingest.number_column"),
    SEGMENTATION: ("masks", "masks", "set ingest.masks=true if it has"),
    LOCALIZATION: ("boxes", "boxes", "set ingest.boxes=true if it has"),
}
"""By `transfer.task`, what `ingest` counts its targets as, what they are, and what to do where there are none."""


def require_labels(recipe: Recipe, ingested: Artifact) -> None:
    """Refuse transfer strategies for data without labels, or without what else they are to predict."""
    transfer = getattr(recipe, "transfer", None)
    strategies, task = getattr(transfer, "strategies", []), _task(recipe)
    counts = ingested.measured
    if not strategies:
        return
    if task in NEEDS:
        key, what, advice = NEEDS[task]
        if not counts.get(key) and not (task == REGRESSION and counts.get("labelled")):  # labels may be numbers
            raise RequestError(
                f"transfer.task: {task} needs {what}, and the data at ingest.path has none; {advice}, {WITHOUT}"
            )
    elif not counts.get("labelled"):
        for other, (key, *_) in NEEDS.items():
            if counts.get(key):
                raise RequestError(
                    f"transfer.task: {task} needs one label a row, and the data has what {other} predicts; set "
                    f"transfer.task={other}, or name a label column, {WITHOUT}"
                )
        raise RequestError(
            f"transfer.strategies: {', '.join(strategies)} need labels, and the data at ingest.path has no labels. "
            f"Put images into one folder per class or name a label column, {WITHOUT}"
        )


def require_test_labels(recipe: Recipe, split: Artifact) -> None:
    """Refuse transfer strategies where nothing could be measured at the end."""
    strategies = getattr(getattr(recipe, "transfer", None), "strategies", [])
    counted = _task(recipe) not in NEEDS  # of other targets the split artifact has no counts
    if strategies and counted and split.measured.get("labelled", {}).get(TEST) == 0:
        raise RequestError(
            f"transfer.strategies: {', '.join(strategies)} need test rows with labels, and there are none; raise the "
            f"test share of split.fractions, or where the data names the splits set split.use_given=false, {WITHOUT}"
        )


def require_usable_labels(recipe: Recipe, split: Artifact) -> None:
    """Refuse labels or label budgets that transfer would refuse at the end; see `require_domain_rows` for domains."""
    transfer = getattr(recipe, "transfer", None)
    if getattr(transfer, "strategies", []) and not _domains(recipe):
        data.check(split, getattr(transfer, "labels_per_class", ()), _task(recipe))


def require_stored_targets(recipe: Recipe, normalized: Artifact) -> None:
    """Refuse masks or boxes that transfer would refuse at the end."""
    if getattr(getattr(recipe, "transfer", None), "strategies", []) and _task(recipe) in DENSE:
        dense_targets.check_stored(normalized, _task(recipe))


def require_targets(recipe: Recipe, split: Artifact) -> None:
    """Refuse strategies that learn several kinds of targets at once for rows that have one."""
    from ssl_tasks.transfer import any_joint, joint

    transfer = getattr(recipe, "transfer", None)
    if any_joint(getattr(transfer, "strategies", ())):
        whole = _domains(recipe) is None
        labelled = data.load(split, getattr(transfer, "labels_per_class", ()), _task(recipe), whole=whole)
        joint.check(joint.load(split, labelled), labelled)


def _task(recipe: Recipe) -> str:
    return getattr(getattr(recipe, "transfer", None), "task", CLASSIFICATION)


def require_domains(recipe: Recipe, ingested: Artifact) -> None:
    """Refuse domains that the data does not have, and such with different label sets."""
    if given := _domains(recipe):
        domains.pairs(ingested.table(ROWS_FILE, [DOMAIN, LABEL]), given)


def require_domain_rows(recipe: Recipe, split: Artifact) -> None:
    """Refuse domains of too few rows or labels in a split."""
    if given := _domains(recipe):
        transfer: Any = getattr(recipe, "transfer", None)
        domains.check(split.table(SPLITS_FILE, [DOMAIN, SPLIT, LABEL]), given, transfer.labels_per_class)


def _domains(recipe: Recipe) -> DomainsConfig | None:
    """Where labels and test rows are to be of different domains: which."""
    transfer = getattr(recipe, "transfer", None)
    given: DomainsConfig | None = getattr(transfer, "domains", None)
    return given if given and given.given and getattr(transfer, "strategies", []) else None
