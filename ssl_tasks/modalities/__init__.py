"""The modalities there are: one file each and one line here."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    from ssl_tasks.modalities.base import Modality

MODALITIES = {
    "image": "ssl_tasks.modalities.image",
    "tabular": "ssl_tasks.modalities.tabular",
}
VERSIONS = {"image": 4, "tabular": 2}
SUFFIXES = {
    "image": (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".dcm", ".dicom"),
    "tabular": (".csv", ".tsv", ".parquet"),
}
OF_FEATURES = frozenset({"tabular"})
"""Modalities whose files are tables with the features as columns; a sample of the others has one encoded payload.

These stand here and not in the modality's file, which imports torch: a cached run needs no more than them."""


@functools.cache
def modality(name: str) -> Modality:
    """The modality called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    require(name)
    loaded: Modality = importlib.import_module(MODALITIES[name]).MODALITY
    return loaded


def require(name: str) -> str:
    """`name`, if there is such a modality."""
    if name not in MODALITIES:
        raise RequestError(f"ingest.modality: no modality {name!r}; there are {', '.join(MODALITIES)}")
    return name
