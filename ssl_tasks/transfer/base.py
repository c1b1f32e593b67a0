"""The transfer contract: a strategy gets labelled train rows, val rows and test rows, and gives class scores.

Test labels are not among what a strategy sees. Hyper-parameters are chosen on val, and the test rows are
scored once, by the final fit.

    prediction = strategy("knn").fit(task)
    prediction.scores        # (T, K)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer import kinds
from ssl_tasks.transfer.rows import Moments, Rows
from ssl_tasks.transfer.targets import CLASSIFICATION, MULTI_LABEL, REGRESSION

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_tasks.transfer.options import Options

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Map = Callable[[FloatArray], FloatArray]
ONE_CLASS = frozenset({CLASSIFICATION})
ALL_FITTED = frozenset({CLASSIFICATION, MULTI_LABEL, REGRESSION})


@dataclass(frozen=True)
class Domains:
    """Positions, where test rows are of another domain, the target, than the labels, which are of the sources."""

    source: IntArray
    """Train rows of the source domains, labelled or not."""
    target: IntArray
    """Train rows of the target, none of them with a label."""
    held_out: tuple[IntArray, IntArray]
    """Rows of source and target for measuring the gap: val rows, or train rows where a domain has too few of them."""
    of_source: IntArray
    """All rows of the source domains, of whatever split."""


@dataclass(frozen=True)
class Context:
    """For strategies that train on the samples themselves: how to read them and build a network for them."""

    payload: Callable[[IntArray], Tensor]
    """Positions (B,) to payload (B, ...) as stored, on the training device."""
    augment: Callable[[Tensor, Tensor], Tensor]
    """One view of each row, by the recipe's policy: payload (B, ...), keys (B,) -> payload (B, ...)."""
    to_input: Callable[[Tensor], Tensor]
    """Payload to normalized float input."""
    build: Callable[[int], nn.Module]
    """The encoder's architecture with fresh weights drawn from a seed: input -> (B, num_features)."""
    networks: Mapping[str, Callable[[], nn.Module]]
    """Name of the method, or `random_init`, to a maker of that encoder's network, each time a new one."""
    train: IntArray
    """Positions of all train rows, labelled or not."""
    options: Options
    student: Callable[[int], nn.Module] | None = None
    """The backbone that `distill.student` names, with weights drawn from a seed; None where it names none."""
    classes: Sequence[str] = ()
    """Names of the classes, by number."""
    inputs: Sequence[str] = ()
    """Names of the input's values, for inputs that have such."""
    method: str = ""
    """Whose network the fit at hand reuses."""
    features: Rows | None = None
    """(N, D) embeddings of all rows by that network, read by position; for tasks that say where things are an array of
    feature maps (N, C, h, w)."""
    domains: Domains | None = None
    """Where the test rows are of a domain that no label is of (`transfer.domains`)."""
    remake: Callable[[], Context] | None = None
    """Makes it anew from the artifacts, in another process."""
    further: Mapping[str, Mapping[str, Callable[[], nn.Module]]] = field(default_factory=dict)
    """As `networks`, for each encoder of `transfer.encoders`, by its name."""
    targets: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By `targets.TASKS` what all rows (N) have, as `data.Labelled.labels`; for strategies that are `joint`."""

    def __reduce__(self) -> tuple[Any, ...]:
        """What is of one encoder or target travels; the rest is made anew where it arrives."""
        assert self.remake is not None, "a context that cannot be remade stays in its process"
        changed = {name: getattr(self, name) for name in ("train", "method", "features", "domains", "targets")}
        return _remade, (self.remake, changed)

    def encoder(self) -> nn.Module:
        """A network with the weights that the fit at hand reuses: input -> (B, num_features)."""
        return self.networks[self.method]()

    def encoders(self) -> list[Callable[[], nn.Module]]:
        """Makers of that network and of those of `transfer.encoders`: all trained, or all untrained."""
        return [networks[self.method] for networks in (self.networks, *self.further.values())]

    def blueprint(self) -> Blueprint:
        """What strategies check before they are fitted."""
        student = self.student(0) if self.student else None
        further = {name: next(iter(networks.values()))() for name, networks in self.further.items()}
        return Blueprint(self.build(0), self.options, student, further)


def _remade(remake: Callable[[], Context], changed: Mapping[str, Any]) -> Context:
    return replace(remake(), **changed)


@dataclass(frozen=True)
class Task:
    """One fit. Rows are embeddings (N, D), or positions (N,) for a strategy that needs payloads."""

    train: NDArray[Any]
    labels: NDArray[Any]
    """(N,) in [0, num_classes); a class of the data set may be missing here. For `multi_label` (N, K) 0 and 1, for
    `regression` (N,) float64, for `segmentation` (N, H, W) uint8, for `localization` (N, 4) shares of the side."""
    val: NDArray[Any]
    val_labels: NDArray[Any]
    """(V,); V may be 0, then strategies take their default."""
    test: NDArray[Any]
    num_classes: int
    """1 for `regression`: scores then have one column, of numbers."""
    seed: int
    metric: str = "accuracy"
    """What is maximized on val."""
    context: Context | None = None
    task: str = CLASSIFICATION
    """One of `targets.TASKS`."""
    widths: Sequence[int] = ()
    """Columns of each encoder, where rows are the embeddings by several of them side by side."""

    def val_score(self, scores: FloatArray) -> tuple[float, float]:
        """What to maximize over candidates: the metric on val, and log likelihood (or RMSE) where that is equal."""
        return kinds.of(self.task).merit(self.val_labels, scores, self.metric)


@dataclass(frozen=True)
class Prediction:
    """What a fit says of the test rows."""

    scores: FloatArray
    """(T, K) class probabilities; rows sum to 1, classes without a train row get the least. For `multi_label` the
    probability of each class by itself, for `regression` (T, 1) numbers. Not looked at where `judged` is given."""
    chosen: dict[str, float] = field(default_factory=dict)
    """Hyper-parameters chosen on val, and what else is worth knowing of the fit."""
    text: str = ""
    """What a fit has to say in words, such as the rules of a tree."""
    examples: NDArray[np.uint8] | None = None
    """(E, H, W) for `segmentation`: what was predicted for the first test rows, to be looked at."""
    judged: Callable[[NDArray[Any]], FloatArray] | None = None
    """For `retrieval` and the tasks that say where things are: from the targets (T, ...) of the test rows to (T, M),
    what the metrics are made of."""


def _same(train: Moments) -> Map:
    return lambda rows: rows


@dataclass(frozen=True)
class Blueprint:
    """What is known before there is an encoder."""

    backbone: nn.Module
    """The encoder's architecture."""
    options: Options
    student: nn.Module | None = None
    """That of `distill.student`, where it names one."""
    further: Mapping[str, nn.Module] = field(default_factory=dict)
    """Those of `transfer.encoders`, by name."""


@dataclass(frozen=True)
class Strategy:
    """One way to reuse an encoder: one file, and one line in `transfer/__init__.py`."""

    name: str
    title: str
    """As a sentence of the report says it, with its article."""
    fit: Callable[[Task], Prediction]
    prepare: Callable[[Moments], Map] = _same
    """From mean and deviation of the embeddings (N, D) of all train rows, labelled or not, to what is done to any row
    before `fit`. It may not hang on other rows: a row is prepared with whatever others are needed."""
    needs: Literal["embeddings", "payload", "maps"] = "embeddings"
    """What its rows are; for `maps` they are positions, and the context's features are feature maps."""
    encoders: Literal["one", "several", "any"] = "one"
    """`several` needs `transfer.encoders` beside the run's own encoder, `any` uses them where they are named.

    Embeddings are then those by all encoders side by side, `Task.widths` wide each.
    """
    joint: bool = False
    """Whether it learns every kind of target that rows have, and not only the one that is predicted."""
    counterpart: str | None = None
    """Name of the strategy that lacks what this one adds: it runs along, and is a further baseline."""
    untrained: Literal["own", "from_scratch"] = "own"
    """What it is compared with: itself on the untrained network, or, where that would be it, training from scratch."""
    check: Callable[[Blueprint], None] | None = None
    """Refuses networks and options it cannot work with, by a `RequestError`, before any stage runs."""
    tasks: frozenset[str] = ONE_CLASS
    """Of `targets.TASKS`, what it can predict."""
    seeded: bool = False
    """Whether a fit draws random numbers; else equal rows give an equal fit under any seed."""
    adapts: bool = False
    """Whether it adapts to `Context.domains`, and so needs a target domain; its `counterpart` does not adapt."""
    slow: bool = False
    """Whether its time grows so fast that it trains on at most `transfer.slow_rows` of the labelled rows."""
    version: int = 1
