"""Contamination: test rows that the encoder has seen in pretraining, equal or nearly so.

A score on such rows says what was remembered. Of an encoder of ours the store knows every row that it was pretrained
on, and those of the encoder that it began from; of one from elsewhere nobody knows, and the report says so.
"""

from __future__ import annotations

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.contamination import rows_of, search
from ssl_tasks.cleaning.overlap import Some
from ssl_tasks.config import Config, artifact_references
from ssl_tasks.schema import CONTAMINATION_FILE, TEST
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
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
    out.table(CONTAMINATION_FILE, found.table)
    return out.artifact(rows=found.table.num_rows, measured=found.measured)


STAGE = Stage("contamination", ContaminationConfig, ("ingest", "clean", "split", "adopt"), run, section="transfer")
