"""What commands and recipes ask of a store before anything runs: which one it is, and the encoders of its runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

if TYPE_CHECKING:
    from flows.recipe import Recipe
    from ssl_tasks.store.runs import RunRecord, StageRecord

DEFAULT_STORE = "./pretextflow-store"
STORE_VARIABLE = "PRETEXTFLOW_STORE"
ADOPT = "adopt"


def with_fingerprints(recipe: Recipe) -> Recipe:
    """The recipe with the encoders of runs that `transfer.encoders` names by their fingerprints, which are hashed.

    Raises:
        RequestError: there is no such run, or it has no encoder, or two names stand for one encoder.
    """
    transfer = getattr(recipe, "transfer", None)
    given: tuple[str, ...] = getattr(transfer, "encoders", ())
    found = tuple(_fingerprint(reference, recipe.store) for reference in given)
    meant: dict[str, str] = {}
    for name, reference in zip(given, found, strict=True):
        other = meant.setdefault(reference.rstrip("/").rpartition("/objects/")[2], name)
        if other != name:
            raise RequestError(f"transfer.encoders: {other} and {name} are the same encoder; name each once")
    if transfer is None or found == given:
        return recipe
    return recipe.model_copy(update={"transfer": transfer.model_copy(update={"encoders": found})})


def _fingerprint(reference: str, store: str) -> str:
    from ssl_tasks.store.references import FINGERPRINT
    from ssl_tasks.store.runs import find_run

    if FINGERPRINT.fullmatch(reference.rstrip("/").rpartition("/objects/")[2]):
        return reference
    try:
        record = find_run(open_to_read(store), reference)
    except RequestError as error:
        raise RequestError(f"transfer.encoders: {error}") from error
    made = encoder_stage(record)
    if made is None:
        raise RequestError(f"transfer.encoders: run {record.run_id} has trained no encoder; it is {record.state}")
    return made.fingerprint


def encoder_stage(record: RunRecord) -> StageRecord | None:
    """The stage that gave a run its encoder, where it came so far."""
    made = [stage for stage in record.stages if stage.name in ("pretrain", ADOPT) and stage.status in ("ran", "cached")]
    return made[0] if made else None


def default_store() -> str:
    """The store of commands that read no recipe."""
    return os.environ.get(STORE_VARIABLE) or DEFAULT_STORE


def open_to_read(uri: str) -> Store:
    """The store, for a command that only looks: one that is not there yet is empty, and is not made.

    Raises:
        RequestError: the place holds something else, or cannot be read.
    """
    store = Store(uri)
    try:
        return Store.open(uri) if store.list("") else store
    except OSError as error:
        raise RequestError(f"store {store.uri}: cannot be read: {error}") from error
