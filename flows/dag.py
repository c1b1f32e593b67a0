"""The DAG on one screen: the stages in order; each says itself which ones it reads."""

from __future__ import annotations

from ssl_tasks.stages import assign, augment, clean, embed, ingest, normalize, pretrain, report, split, transfer
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
