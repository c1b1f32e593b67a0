"""A map of the embeddings in two dimensions, a dot for each of some rows: principal components, or UMAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.embedded import Float, take
from ssl_tasks.report.pictures import Pictures
from ssl_tasks.report.predictions import Int
from ssl_tasks.report.scatter import Dot, scatter
from ssl_tasks.report.units import percent
from ssl_tasks.schema import LABEL, LABEL_KEY, PRETRAINED_FILE, RANDOM_INIT_FILE, SPLIT, SPLITS, TRAIN

Kind = Literal["pca", "umap"]
MOST_ROWS, MOST_PICTURES = 1500, 300
PICTURE_SIDE = 32
COLOURS = 10
"""Classes that have a colour each; of more, dots are coloured by split."""
NEIGHBOURS, FEW_FOR_UMAP = 15, 30
"""Of a row in UMAP, its default; and rows from which on it has anything to tell."""
FLAT = 1e-10
"""Variance, as a share of the mean square, below which embeddings count as one point."""


@dataclass(frozen=True)
class Colouring:
    """Which class of the style sheet each row has."""

    by: str
    """What the colours stand for."""
    css: list[str]
    """(N,)."""
    names: list[str]
    """(N,) what each row's colour stands for."""
    legend: list[tuple[str, str]]
    """(css, name), sorted by name."""


def chosen(splits: pa.Table) -> Int:
    """(N,) positions of test and val rows, or of train rows where there are no others, in an order that is random.

    `label_key` is random per row, so the first of its order are a fair sample whatever order the data came in.
    """
    keys = splits[LABEL_KEY].to_numpy()
    held_out = np.flatnonzero(pc.not_equal(splits[SPLIT], TRAIN).to_numpy())
    rows = held_out if len(held_out) else np.arange(len(keys))
    return rows[np.argsort(keys[rows], kind="stable")][:MOST_ROWS]


def project(values: Float) -> tuple[Float, list[float]]:
    """(N, 2) coordinates of (N, D) embeddings, and the share of their variance along each of the two."""
    from sklearn.decomposition import PCA

    points, shares = np.zeros((len(values), 2)), [0.0, 0.0]
    if len(values) < 2 or values.var(axis=0).sum() <= FLAT * np.square(values).mean(axis=0).sum():
        return points, shares
    number = min(2, *values.shape)
    fitted = PCA(number, svd_solver="full")  # the randomized one would not give the same signs everywhere
    points[:, :number] = fitted.fit_transform(values)
    shares[:number] = fitted.explained_variance_ratio_.tolist()
    return points, shares


def project_umap(values: Float) -> Float:
    """(N, 2) coordinates of (N, D) embeddings by UMAP (McInnes et al., arXiv 1802.03426), cosines as distances.

    One thread and a seed: the same values give the same map. Fewer rows than `FEW_FOR_UMAP` are projected by `project`.
    """
    if len(values) < FEW_FOR_UMAP or not project(values)[1][0]:
        return project(values)[0]
    import umap

    mapped = umap.UMAP(n_neighbors=NEIGHBOURS, min_dist=0.1, metric="cosine", init="pca", random_state=0, n_jobs=1)
    points: Float = np.asarray(mapped.fit_transform(values), np.float64)
    return points


def colouring(labels: Sequence[str | None], of_split: Sequence[str]) -> Colouring:
    """By label where at most `COLOURS` classes are there, else by split."""
    classes = sorted({label for label in labels if label is not None})
    if 0 < len(classes) <= COLOURS:
        css = {name: f"c{number}" for number, name in enumerate(classes)}
        legend = [(css[name], name) for name in classes]
        if None in labels:
            legend.append(("c-none", "no label"))
        names = ["no label" if label is None else label for label in labels]
        return Colouring("class", ["c-none" if label is None else css[label] for label in labels], names, legend)
    present = [name for name in SPLITS if name in of_split]
    css = {name: f"c{number}" for number, name in enumerate(present)}
    return Colouring("split", [css[name] for name in of_split], list(of_split), [(css[name], name) for name in present])


def section(splits: pa.Table, embed: Artifact, pictures: Pictures | None, method: str, kind: Kind) -> dict[str, Any]:
    """Maps of the encoder and of the untrained network with their legend, for the template."""
    positions = chosen(splits)
    rows = splits.take(pa.array(positions))
    labels, of_split = rows[LABEL].to_pylist(), rows[SPLIT].to_pylist()
    colours = colouring(labels, of_split)
    images = pictures.take(positions[:MOST_PICTURES], PICTURE_SIDE) if pictures else []
    told = [label or "" for label in labels]
    maps: list[dict[str, Any]] = []
    for name, title in ((PRETRAINED_FILE, f"Encoder of {method}"), (RANDOM_INIT_FILE, "Same network, untrained")):
        points, axes = _projected(take(embed, name, positions), kind)
        dots = [
            Dot(float(x), float(y), css, text, of)
            for (x, y), css, text, of in zip(points, colours.css, told, of_split, strict=True)
        ]
        names = list(zip(colours.names, colours.css, strict=True)) if colours.by == "class" else []
        svg = scatter(title, dots, axes, images=images, names=names, define=not maps)
        maps.append({"caption": title, "svg": svg})
    return {
        "kind": kind,
        "maps": maps,
        "by": colours.by,
        "legend": colours.legend,
        "rows": f"{len(positions):,}",
        "splits": " and ".join(name for name in SPLITS if name in of_split),
        "pictures": len(images),
    }


def _projected(values: Float, kind: Kind) -> tuple[Float, tuple[str, str]]:
    """Coordinates, and what is written along x and y."""
    if kind == "umap":
        return project_umap(values), ("", "")
    points, shares = project(values)
    x, y = (f"component {number}: {percent(share)} of variance" for number, share in enumerate(shares, start=1))
    return points, (x, y)
