"""Artifacts that a recipe names: by fingerprint in the run's own store, or by URI in another."""

from __future__ import annotations

from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.store.filesystem import Store
from ssl_tasks.store.output import Output


def resolve(reference: str, out: Output, *, key: str, stage: str, role: str) -> Artifact:
    """The artifact that the recipe's `key` names; it becomes a parent of what `out` is for.

    Args:
        reference: a fingerprint, or `<store>/objects/<fingerprint>`.
        stage: which stage must have made it.
        role: what it is called among the parents.

    Raises:
        RequestError: there is no such artifact, or another stage made it.
    """
    uri, _, fingerprint = reference.rpartition("/objects/")
    found = Store(uri or out.uri).find_manifest(fingerprint)  # not Store.open: a mistyped place is not made
    if found is None:
        raise RequestError(f"{key}: there is no artifact {fingerprint} in {uri or out.uri}")
    if found.stage != stage:
        raise RequestError(f"{key}: {reference} is an artifact of {found.stage}, not of {stage}")
    out.read[role] = fingerprint
    return Artifact(uri or out.uri, fingerprint, stage, found.rows)
