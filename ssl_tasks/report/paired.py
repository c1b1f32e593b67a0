"""Two encoders on the same test rows: differences with intervals, from the predictions that two runs have stored.

    matched = match(old_split, new_split)
    lines = compare(matched, old_transfer, new_transfer, metric="accuracy", resamples=2000, seed=0)

Only rows that are labelled test rows of both runs, with one label, are compared: neither encoder has seen any of them.
Rows are resampled by group and fits by seed, as within one run (`transfer.bootstrap`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.predictions import Int
from ssl_tasks.schema import GROUP_ID, LABEL, PREDICTIONS_FILE, ROW, SAMPLE_ID, SPLIT, SPLITS_FILE, TEST
from ssl_tasks.transfer.bootstrap import Float, interval, replicates, seed_weights
from ssl_tasks.transfer.metrics import weighted

COLUMNS = ["strategy", "method", "label_fraction", "seed", ROW, "predicted", "likelihood", "confidence"]
Budget = tuple[str, float]
"""Strategy and label fraction."""


@dataclass(frozen=True)
class Matched:
    """The test rows that two runs have in common, in the order of the new one's payload."""

    old_rows: Int
    """(R,) row numbers in the old run's ingest."""
    new_rows: Int
    """(R,) row numbers of the same samples in the new run's."""
    labels: list[str]
    """(R,)."""
    groups: Int
    """(R,) from 0: rows that either run joins are joined."""
    num_old: int
    """Labelled test rows of the old run."""
    num_new: int
    relabelled: int
    """Rows that both have under different labels."""

    @property
    def same(self) -> bool:
        """Whether both runs were tested on exactly these rows."""
        return len(self.labels) == self.num_old == self.num_new

    @property
    def num_groups(self) -> int:
        """Independent groups among the rows."""
        return len(np.unique(self.groups))


def match(old: Artifact, new: Artifact) -> Matched:
    """Find the labelled test rows that two split artifacts share, by the samples' identity."""
    ours, theirs = _labelled_test(new), _labelled_test(old)
    places = pc.index_in(ours[SAMPLE_ID], theirs[SAMPLE_ID].combine_chunks())
    both = pc.is_valid(places)
    ours, theirs = ours.filter(both), theirs.take(places.filter(both))
    equal = pc.equal(ours[LABEL], theirs[LABEL])
    kept, others = ours.filter(equal), theirs.filter(equal)
    return Matched(
        old_rows=others[ROW].to_numpy(),
        new_rows=kept[ROW].to_numpy(),
        labels=kept[LABEL].to_pylist(),
        groups=_joined(_codes(others[GROUP_ID]), _codes(kept[GROUP_ID])),
        num_old=_labelled_test(old).num_rows,
        num_new=_labelled_test(new).num_rows,
        relabelled=ours.num_rows - kept.num_rows,
    )


def _labelled_test(split: Artifact) -> pa.Table:
    table = split.table(SPLITS_FILE, [ROW, SAMPLE_ID, GROUP_ID, SPLIT, LABEL])
    return table.filter(pc.and_(pc.equal(table[SPLIT], TEST), pc.is_valid(table[LABEL])))


def _codes(column: pa.ChunkedArray) -> Int:
    codes: Int = column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _joined(first: Int, second: Int) -> Int:
    """(R,) numbers of the connected sets of rows, where two rows are connected by a common group of either kind."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(first):
        return first
    offset = int(first.max()) + 1
    size = offset + int(second.max()) + 1
    edges = coo_array((np.ones(len(first)), (first, second + offset)), shape=(size, size))
    _, of_node = connected_components(edges, directed=False)
    _, groups = np.unique(of_node[first], return_inverse=True)
    return groups.astype(np.int64)


@dataclass(frozen=True)
class Fitted:
    """One fit's answers on the matched rows."""

    predicted: list[str]
    likelihood: Float
    """(R,) probability of the true class."""
    confidence: Float
    """(R,) probability of the predicted class."""


@dataclass(frozen=True)
class PairedLine:
    """Two encoders under one strategy at one label budget; shares, means over the seeds that both runs have."""

    strategy: str
    label_fraction: float
    num_seeds: int
    old: float
    new: float
    difference: float
    """Newer minus older."""
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def load(transfer: Artifact, rows: Int) -> dict[Budget, dict[int, Fitted]]:
    """The pretrained encoder's fits by budget and seed, their answers in the order of `rows`."""
    method = transfer.measured["method"]
    parts = [batch.filter(pc.equal(batch["method"], method)) for batch in transfer.batches(PREDICTIONS_FILE, COLUMNS)]
    table = pa.concat_tables(parts)
    found: dict[Budget, dict[int, Fitted]] = defaultdict(dict)
    for key in table.group_by(["strategy", "label_fraction", "seed"], use_threads=False).aggregate([]).to_pylist():
        same = [pc.equal(table[name], value) for name, value in key.items()]
        fit = table.filter(pc.and_(pc.and_(same[0], same[1]), same[2]))
        fit = fit.take(pc.index_in(pa.array(rows), fit[ROW].combine_chunks()))
        answers = (fit["likelihood"].to_numpy(), fit["confidence"].to_numpy())
        found[key["strategy"], key["label_fraction"]][key["seed"]] = Fitted(fit["predicted"].to_pylist(), *answers)
    return dict(found)


def compare(
    matched: Matched,
    old: Mapping[Budget, Mapping[int, Fitted]],
    new: Mapping[Budget, Mapping[int, Fitted]],
    *,
    metric: str,
    resamples: int,
    seed: int,
) -> list[PairedLine]:
    """A line for each budget and strategy that both runs have with a seed in common, in the new run's order.

    Args:
        old, new: as `load` gives them.
        resamples: replicates behind each interval.
    """
    shared = {budget: sorted(set(of) & set(old.get(budget, {}))) for budget, of in new.items()}
    pairs = [(budget, number) for budget, numbers in shared.items() for number in numbers]
    if not pairs or not matched.labels:
        return []
    fits = [side[budget][number] for budget, number in pairs for side in (old, new)]
    labels, outcomes, classes = _encoded(matched.labels, fits)
    drawn = replicates(labels, outcomes, matched.groups, len(classes), resamples, seed)
    once = np.ones((len(labels), 1))
    values = [float(weighted(labels, *outcome, once, len(classes))[metric][0]) for outcome in outcomes]
    lines = []
    for budget, numbers in shared.items():
        places = [2 * place for place, pair in enumerate(pairs) if pair[0] == budget]
        if not places:
            continue
        before, after = (float(np.mean([values[place + side] for place in places])) for side in (0, 1))
        differences_BS = np.stack([drawn[place + 1][metric] - drawn[place][metric] for place in places], axis=1)
        low, high = interval(differences_BS, seed_weights(len(places), resamples, seed))
        lines.append(PairedLine(*budget, len(numbers), before, after, after - before, low, high))
    return lines


def _encoded(labels: list[str], fits: Sequence[Fitted]) -> tuple[Int, list[tuple[Int, Float, Float]], list[str]]:
    """Class numbers of labels and of all predictions, and the sorted classes that they number."""
    classes = sorted({*labels, *(name for fit in fits for name in fit.predicted)})
    number = {name: place for place, name in enumerate(classes)}

    def codes(names: list[str]) -> Int:
        return np.array([number[name] for name in names], np.int64)

    return codes(labels), [(codes(fit.predicted), fit.likelihood, fit.confidence) for fit in fits], classes


def changes(matched: Matched, old: Mapping[int, Fitted], new: Mapping[int, Fitted], most: int) -> dict[str, Any]:
    """What became right and what wrong at one budget, and how often each class is taken for each other one.

    Args:
        old, new: fits by seed; seeds that both have are counted.
        most: pairs of classes that are given.

    Returns:
        `fixed` and `broken`, rows as means over seeds; `pairs` (class, called, old share, new share of the class's
        rows), the largest changes first.
    """
    seeds = sorted(set(old) & set(new))
    labels, outcomes, classes = _encoded(matched.labels, [side[number] for number in seeds for side in (old, new)])
    size = len(classes)
    before, after = (np.stack([predicted for predicted, *_ in outcomes[place::2]]) for place in (0, 1))
    totals = np.bincount(labels, minlength=size) * len(seeds)
    shares = []
    for predicted in (before, after):
        flat = np.bincount((labels * size + predicted).ravel(), minlength=size * size).reshape(size, size)
        shares.append(flat / np.maximum(totals, 1)[:, None])
    moved = np.abs(shares[1] - shares[0])
    order = np.argsort(-moved, axis=None, kind="stable")[:most]
    was_right, is_right = before == labels, after == labels
    return {
        "fixed": float((is_right & ~was_right).sum(axis=1).mean()),
        "broken": float((was_right & ~is_right).sum(axis=1).mean()),
        "pairs": [
            (classes[truth], classes[called], float(shares[0][truth, called]), float(shares[1][truth, called]))
            for truth, called in (divmod(int(place), size) for place in order)
            if moved[truth, called] > 0
        ],
    }
