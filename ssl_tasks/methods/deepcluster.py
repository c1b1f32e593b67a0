"""DeepCluster: tell the cluster that an image's features fell into at the last clustering (arXiv 1807.05520).

pretrain: {method: {name: deepcluster, num_clusters: 100}}
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, TrainStats, ViewSpec, length_from_checkpoint
from ssl_tasks.randomness import normal, row_keys
from ssl_tasks.training.collectives import from_rank_0, rank

KMEANS_ROWS = 4096
"""Rows of a mini-batch of k-means."""

MIN_SPREAD = 1e-3
"""Components that spread less than this share of the first are left out: whitened, the rounding errors of float32 would
weigh as much as what there is to tell."""


class DeepClusterConfig(MethodConfig):
    """Defaults of the paper, sections 3.3 and 4.1."""

    name: Literal["deepcluster"]
    num_clusters: int = Field(100, ge=2)
    """The paper found ten times as many as there are classes best: 10,000 for ImageNet."""
    epochs_per_clustering: int = Field(1, ge=1)
    """The paper's 1 gives the new classifier 5,000 steps on ImageNet. Where an epoch has few, it learns nothing before
    the next one: ask for a hundred steps or more, in epochs."""
    pca_dim: int = Field(256, ge=1)
    """Of the whitened features that are clustered, at most."""


def cluster(features: np.ndarray, num_clusters: int, pca_dim: int, seed: int) -> np.ndarray:
    """Pseudo-labels of rows: PCA with whitening, l2 normalization, k-means; no cluster is empty.

    Args:
        features: (N, D) with N >= num_clusters.
        seed: of PCA and of k-means.

    Returns:
        (N,) int64 from 0 to num_clusters - 1.
    """
    from sklearn.cluster import MiniBatchKMeans  # scikit-learn costs seconds
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # features that are constant, or fewer points than clusters: filled up below
        for expected in (ConvergenceWarning, RuntimeWarning):
            warnings.simplefilter("ignore", expected)
        pca = PCA(min(pca_dim, *features.shape), random_state=seed).fit(features)
        spread = np.sqrt(pca.explained_variance_)
        kept = spread > MIN_SPREAD * spread.max()
        white = pca.transform(features)[:, kept] / spread[kept] if kept.any() else np.zeros((len(features), 1))
        white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
        kmeans = MiniBatchKMeans(num_clusters, batch_size=KMEANS_ROWS, n_init=3, random_state=seed)
        labels = kmeans.fit_predict(white).astype(np.int64)
    return without_empty(labels, white, num_clusters, seed)


def without_empty(labels: np.ndarray, points: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Every empty cluster gets half of the largest one, cut across a random direction.

    Section 3.3 puts the empty cluster's centroid beside a full one's, slightly moved, and shares the rows out between
    the two; cut at the median, neither stays empty even where all points are equal.
    """
    random, labels = np.random.default_rng(seed), labels.copy()
    sizes = np.bincount(labels, minlength=num_clusters)
    for empty in np.flatnonzero(sizes == 0):
        members = np.flatnonzero(labels == sizes.argmax())
        across = points[members] @ random.normal(size=points.shape[1])
        taken = members[np.argsort(across, kind="stable")[: len(members) // 2]]
        labels[taken] = empty
        sizes = np.bincount(labels, minlength=num_clusters)
    return labels


def balanced_cross_entropy(logits: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """Cross entropy in which all clusters weigh the same (section 3.3), averaged over rows.

    Args:
        logits: (B, K).
        labels: (B,) int64.
        sizes: (K,) rows in each cluster; a row of cluster k weighs N / (K sizes[k]), 1 on average over N train rows.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weights = sizes.sum() / (len(sizes) * sizes[labels].to(logits.dtype))
    return (weights * functional.cross_entropy(logits, labels, reduction="none")).mean()


class DeepCluster(Method):
    """Backbone and a linear classifier of clusters, which starts anew with each clustering."""

    views: ClassVar[ViewSpec] = ViewSpec(("augment",))
    shards: ClassVar[bool] = False
    positions: Tensor
    """(N,) int64, the train rows' positions in the payload, ascending."""
    labels: Tensor
    """(N,) int64, their clusters; before the first clustering row i has i mod `num_clusters`."""
    epoch: Tensor
    """() int64, epochs that have begun."""

    def __init__(self, config: DeepClusterConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.classifier = nn.Linear(self.num_features, config.num_clusters)
        for name in ("positions", "labels"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))
            length_from_checkpoint(self, name)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self._start_classifier()

    @classmethod
    def check(cls, config: DeepClusterConfig, batch_size: int, num_rows: int | None = None) -> list[str]:
        """No cluster may be empty."""
        if num_rows is not None:
            _require_members(config.num_clusters, num_rows)
        return []

    def prepare(self, stats: TrainStats) -> None:
        """Note where the train rows are.

        Raises:
            RequestError: there are fewer than clusters.
        """
        _require_members(self.config.num_clusters, stats.num_rows)
        self.positions = stats.positions.to(self.positions)
        self.labels = torch.arange(stats.num_rows).to(self.labels) % self.config.num_clusters

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """Where a clustering is due: cluster all train rows' features on rank 0, start the classifier anew on all."""
        due = int(self.epoch) % self.config.epochs_per_clustering == 0
        if due:
            self._cluster(embed)
        self.epoch += 1
        if due:
            self._start_classifier()

    def _cluster(self, embed: Callable[[], Tensor]) -> None:
        labels = torch.empty_like(self.labels)
        if rank() == 0:
            features = torch.nan_to_num(embed()).numpy()  # a loss that is no number stops the run on all ranks
            config = self.config
            found = cluster(features, config.num_clusters, config.pca_dim, int(self.epoch))
            labels.copy_(torch.from_numpy(found))
        self.labels = from_rank_0(labels)

    @torch.no_grad()
    def _start_classifier(self) -> None:
        """Weights from N(0, 0.01^2), drawn for each epoch: numbers of old clusters mean nothing for the new."""
        weight = self.classifier.weight
        keys = row_keys(0, int(self.epoch), torch.arange(len(weight)))
        weight.copy_(0.01 * normal(keys, "deepcluster.classifier", weight.shape[1]))
        self.classifier.bias.zero_()

    def chance(self) -> dict[str, float]:
        """Of all clusters."""
        return {"loss": math.log(self.config.num_clusters)}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, log `num_clusters` at chance, and `cluster_accuracy`."""
        (view,) = batch.views
        labels = self.labels[torch.searchsorted(self.positions, batch.positions)]
        logits = self.classifier(self.backbone(view))
        sizes = torch.bincount(self.labels, minlength=self.config.num_clusters)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss": balanced_cross_entropy(logits, labels, sizes), "cluster_accuracy": accuracy}


def _require_members(num_clusters: int, num_rows: int) -> None:
    if num_rows < num_clusters:
        raise RequestError(
            f"pretrain.method.num_clusters: {num_clusters} clusters of {num_rows} train rows; "
            f"set it to {max(2, num_rows // 10)} or so"
        )


SPEC = MethodSpec(
    name="deepcluster",
    config=DeepClusterConfig,
    method=DeepCluster,
    modalities=("image",),
    family="clustering",
    paper="Deep Clustering for Unsupervised Learning of Visual Features, arXiv 1807.05520",
)
