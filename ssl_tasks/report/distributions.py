"""How classes and sizes are distributed: rows of each class by split; width, height and bytes of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.bars import Bar, bars, histogram
from ssl_tasks.report.charts import Figure
from ssl_tasks.report.embedded import Float
from ssl_tasks.schema import MEASURES_FILE, PAYLOAD, SPLITS
from ssl_tasks.shards import iterate

SPLIT_CSS = dict(zip(SPLITS, ("pretrained", "random", "scratch"), strict=True))


def classes(splits: Mapping[str, Any]) -> Figure | None:
    """A bar for each class, its rows by split; None without labels.

    Args:
        splits: as `sections.splits` gives them, numbers written out.
    """
    rows = []
    for line in splits["classes"]:
        counts = {name: int(line[name].replace(",", "")) for name in SPLITS}
        told = f"{line['name']}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
        parts = [(float(counts[name]), SPLIT_CSS[name]) for name in SPLITS]
        rows.append(Bar(line["name"], parts, f"{sum(counts.values()):,}", told))
    return Figure("Rows of each class", bars("Rows of each class", rows)) if rows else None


def sizes(clean: Artifact, ingest: Artifact) -> dict[str, Any] | None:
    """Histograms of what varies, and in words what does not; None where samples are no images."""
    if MEASURES_FILE not in clean.names():
        return None
    values = {name: _column(clean, name) for name in ("width", "height")}
    held = _bytes(ingest)
    kinds: dict[str, tuple[Float, float, str, Callable[[float], str]]] = {
        "Width": (values["width"], 1.0, "pixels", "{:,.0f} pixels wide".format),
        "Height": (values["height"], 1.0, "pixels", "{:,.0f} pixels high".format),
        "Bytes as they came": (held, *_unit(held), "{:,.0f} bytes large".format),
    }
    figures, constant = [], []
    for caption, (found, unit, label, words) in kinds.items():
        if not len(found):
            continue
        if found.min() == found.max():
            constant.append(words(float(found[0])))
        else:
            figures.append(Figure(caption, histogram(caption, label, found, unit)))
    return {"figures": figures, "constant": constant}


def _unit(held: Float) -> tuple[float, str]:
    """What to count bytes in."""
    largest = float(held.max(initial=0))
    return next((unit for unit in ((1e6, "MB"), (1e3, "kB")) if largest >= 10 * unit[0]), (1.0, "bytes"))


def _column(clean: Artifact, name: str) -> Float:
    parts = [batch[name].to_numpy() for batch in clean.batches(MEASURES_FILE, [name])]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def _bytes(ingest: Artifact) -> Float:
    """(N,) of every sample as it came; reads offsets and no content. Missing and empty ones are left out."""
    parts = []
    for shard in iterate(ingest, "raw"):
        lengths = pc.binary_length(shard[PAYLOAD]).drop_null().to_numpy()
        parts.append(lengths[lengths > 0])
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
