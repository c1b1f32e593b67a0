"""Artifacts that a recipe names: by fingerprint in the run's own store, or by URI in another."""

from __future__ import annotations

import re

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.store.filesystem import DamagedError, Store
from ssl_tasks.store.output import Output

FINGERPRINT = re.compile("[0-9a-f]{64}")
AS_GOOD_AS = {"pretrain": ("pretrain", "adopt")}
"""Stages whose artifacts stand in for another's: an encoder that was adopted is as good as one that was pretrained."""


def resolve(reference: str, out: Output, *, key: str, stage: str, role: str) -> Artifact:
    """The artifact that the recipe's `key` names; it becomes a parent of what `out` is for.

    Args:
        role: what it is called among the parents.

    Raises:
        RequestError: as `find`.
    """
    found = find(reference, out.uri, key=key, stage=stage)
    out.read[role] = found.fingerprint
    return found


def find(reference: str, store: str, *, key: str, stage: str) -> Artifact:
    """The artifact that the recipe's `key` names.

    Args:
        reference: a fingerprint, or `<store>/objects/<fingerprint>`.
        store: URI of the run's own store.
        stage: which stage must have made it.

    Raises:
        RequestError: there is no such artifact, it is damaged, or another stage made it.
    """
    uri, _, fingerprint = reference.rstrip("/").rpartition("/objects/")
    place = uri or store
    if not FINGERPRINT.fullmatch(fingerprint):
        raise RequestError(
            f"{key}: {reference} is no fingerprint of an artifact, and not <store>/objects/<fingerprint>"
        )
    found = _whole(Store(place), fingerprint, key)  # not Store.open: a mistyped place is not made
    if found.stage not in AS_GOOD_AS.get(stage, (stage,)):
        raise RequestError(f"{key}: {reference} is an artifact of {found.stage}, not of {stage}")
    return found


def parent(artifact: Artifact, role: str, *, key: str) -> Artifact:
    """What an artifact that the recipe's `key` leads to was made from.

    Raises:
        RequestError: it is not in the store any more, or damaged.
    """
    return _whole(artifact.store, artifact.manifest.parents[role], key)


def _whole(store: Store, fingerprint: str, key: str) -> Artifact:
    try:
        found = store.lookup(fingerprint)
    except DamagedError as error:
        raise RequestError(f"{key}: the artifact {fingerprint} in {store.uri} is damaged: {error}") from error
    if found is None:
        raise RequestError(f"{key}: there is no artifact {fingerprint} in {store.uri}")
    return found
