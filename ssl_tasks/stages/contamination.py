"""Contamination: test rows that the encoder has seen in pretraining, equal or nearly so.

A score on such rows says what was remembered. Of an encoder of ours the store knows every row that it was pretrained
on, and those of the encoder that it began from; of one from elsewhere nobody knows, and the report says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ssl_tasks.adoption.reference import parse
from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.contamination import absent, rows_of, search
from ssl_tasks.cleaning.overlap import Some
from ssl_tasks.config import Config, artifact_references
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.schema import CONTAMINATION_FILE, TEST
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output, Store
from ssl_tasks.store.filesystem import DamagedError
from ssl_tasks.store.references import find


class ContaminationConfig(Config):
    """What the section `transfer` says of encoders; `clean.near_duplicates` says what counts as nearly equal."""

    encoders: tuple[str, ...] = artifact_references()
    """Further ones, which have seen data too."""


def run(
    config: ContaminationConfig, out: Output, ingested: Artifact, cleaned: Artifact, split: Artifact, adopted: Artifact
) -> Artifact:
    """Write `contamination.parquet`: each test row that was seen, and the most alike row of each pretraining."""
    others = [find(reference, out.uri, key="transfer.encoders", stage="pretrain") for reference in config.encoders]
    out.read.update({f"encoder {place}": one.fingerprint for place, one in enumerate(others, start=1)})
    found = search([adopted, *others], Some(cleaned, rows_of(split, TEST)), ingested)
    parents = dict(zip(STAGE.inputs, (one.fingerprint for one in (ingested, cleaned, split, adopted)), strict=True))
    if STAGE.fingerprint(config, parents, absent([adopted, *others])) != out.fingerprint:
        raise StageError("contamination: data of an encoder came or went after the run was planned; run again")
    out.table(CONTAMINATION_FILE, found.table)
    return out.artifact(rows=found.table.num_rows, measured=found.measured)


def beside(configs: Mapping[str, Any], fingerprints: Mapping[str, str], store: str) -> str | None:
    """Hash of what is not at hand of that which the encoders were pretrained on."""
    try:
        adopted = Store(store).lookup(fingerprints["adopt"])
    except DamagedError:
        adopted = None
    given = [("adopt.encoder", configs["adopt"].encoder)] if adopted is None else []
    given += [("transfer.encoders", reference) for reference in configs["contamination"].encoders]
    found = [] if adopted is None else [adopted]
    for key, reference in given:
        if parse(reference) is None:  # of one from elsewhere nobody knows what it was pretrained on, now as ever
            with contextlib.suppress(RequestError):  # the stage that reads it refuses it
                found.append(find(reference, store, key=key, stage="pretrain"))
    return absent(found)


STAGE = Stage(
    "contamination", ContaminationConfig, ("ingest", "clean", "split", "adopt"), run, section="transfer", beside=beside
)
