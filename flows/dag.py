"""The DAGs on one screen: the stages in order; each says itself which ones it reads."""

from __future__ import annotations

from ssl_tasks.stages import (
    adopt,
    assign,
    augment,
    clean,
    contamination,
    embed,
    ingest,
    normalize,
    pretrain,
    report,
    split,
    transfer,
)
from ssl_tasks.stages.base import Stage

DAG: tuple[Stage, ...] = (
    ingest.STAGE,
    clean.STAGE,
    assign.STAGE,
    normalize.STAGE,
    split.STAGE,
    augment.STAGE,
    pretrain.STAGE,
    embed.STAGE,
    transfer.STAGE,
    report.STAGE,
)

TRANSFER: tuple[Stage, ...] = (
    adopt.STAGE,
    ingest.STAGE,
    clean.STAGE,
    assign.STAGE,
    normalize.LIKE,
    split.STAGE,
    augment.STAGE,
    embed.OF_ADOPTED,
    transfer.OF_ADOPTED,
    contamination.STAGE,
    report.OF_ADOPTED,
)
"""For an encoder that is there already: `pretextflow transfer`, and any recipe with a section `adopt`."""
