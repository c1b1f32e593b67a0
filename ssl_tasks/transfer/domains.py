"""Labels from some domains, test rows from another: which rows a fit may see, and what is refused before any work.

    for shift in shifts(load(split), DomainsConfig(leave_one_out=True)):
        shift.target, shift.data      # `data` holds the labels of the other domains and the target's test rows

A target's labels are taken out of the table that label budgets are drawn from, and its val rows out of those that
choose: no fit can come by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssl_tasks.errors import RequestError
from ssl_tasks.schema import DOMAIN, LABEL, SPLIT, TEST, TRAIN, VAL
from ssl_tasks.transfer.base import Domains
from ssl_tasks.transfer.data import Int, Labelled, check_labels
from ssl_tasks.transfer.options import DomainsConfig
from ssl_tasks.transfer.targets import NAMED

KEY = "transfer.domains"
HELD_OUT = 20
"""A domain with fewer val rows has its gap measured on train rows."""
FEWEST = 4
"""Train rows of a domain: two for fitting and two for judging the classifier of the gap."""


@dataclass(frozen=True)
class Shift:
    """One target and what its fits see."""

    target: str
    sources: list[str]
    data: Labelled
    """Labels of train and val rows are the sources', the test rows the target's; other domains stand nowhere."""
    domains: Domains


def pairs(table: pa.Table, config: DomainsConfig) -> list[tuple[list[str], str]]:
    """Sources and target of each shift that a recipe asks for.

    Args:
        table: with the columns `domain` and `label`.

    Raises:
        RequestError: there are no domains, or too few, none of a name that is given, or labels that one of them has
            and another has not.
    """
    there = sorted(pc.unique(table[DOMAIN]).drop_null().to_pylist())
    if len(there) < 2:
        what = "no domains" if not there else f"one domain only, {there[0]!r}"
        raise RequestError(
            f"{KEY}: the data has {what}; name them by a folder level (ingest.folders) or a column "
            "(ingest.domain_column), or leave the key out"
        )
    given = [*config.source, config.target] if config.target is not None else []
    unknown = [name for name in given if name not in there]
    if unknown:
        raise RequestError(f"{KEY}: the data has no domain {unknown[0]!r}; there are {_named(there)}")
    if config.target is not None:
        found = [(list(config.source) or [name for name in there if name != config.target], config.target)]
    else:
        found = [([name for name in there if name != target], target) for target in there]
    _check_label_sets(table, sorted({name for sources, target in found for name in (*sources, target)}))
    return found


def _named(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _check_label_sets(table: pa.Table, domains: Sequence[str]) -> None:
    sets = {}
    for name in domains:
        labels = pc.unique(table[LABEL].filter(pc.equal(table[DOMAIN], name))).drop_null().to_pylist()
        sets[name] = set(labels)
        if not labels:
            raise RequestError(f"{KEY}: domain {name!r} has no labels, which its test rows need at least")
    first = domains[0]
    for name in domains[1:]:
        for one, other in ((first, name), (name, first)):
            if more := sorted(sets[one] - sets[other]):
                raise RequestError(
                    f"{KEY}: the label sets of the domains differ: {one!r} has {_named(more)}, and {other!r} has not; "
                    "leave out rows of classes that not all domains have, or name domains with the same ones"
                )


def check(splits: pa.Table, config: DomainsConfig, labels_per_class: Sequence[int] = ()) -> None:
    """Refuse what the rows of the splits do not allow.

    Args:
        splits: with the columns `domain`, `label` and `split`.

    Raises:
        RequestError: as `pairs` and `data.check_labels`, or a domain has next to no train rows.
    """
    for sources, target in pairs(splits, config):
        for names in (sources, [target]):
            rows = pc.and_(pc.is_in(splits[DOMAIN], pa.array(names)), pc.equal(splits[SPLIT], TRAIN))
            count = pc.sum(rows).as_py() or 0
            if count < FEWEST:
                raise RequestError(
                    f"{KEY}: {_named(names)}: {count} train rows are too few; labels and the gap need {FEWEST} at least"
                )
        try:
            check_labels(_seen(splits, sources, target), labels_per_class)
        except RequestError as error:
            raise RequestError(f"{KEY}: with target {target!r} and source {_named(sources)}: {error}") from error


def _seen(splits: pa.Table, sources: Sequence[str], target: str) -> pa.Table:
    """`splits` with the labels of the sources' train and val rows, and of the target's test rows, alone."""
    of_source, of_target = (pc.is_in(splits[DOMAIN], pa.array(names)) for names in (sources, [target]))
    there = pc.if_else(pc.equal(splits[SPLIT], TEST), of_target, of_source)
    kept = pc.if_else(there, splits[LABEL], pa.scalar(None, pa.string()))
    return splits.set_column(splits.column_names.index(LABEL), LABEL, kept)


def shifts(data: Labelled, config: DomainsConfig) -> list[Shift]:
    """Each target with what its fits see."""
    return [_shift(data, sources, target) for sources, target in pairs(data.splits, config)]


def _shift(data: Labelled, sources: list[str], target: str) -> Shift:
    domain, split = data.splits[DOMAIN], data.splits[SPLIT]
    of_source, of_target = (pc.is_in(domain, pa.array(names)).to_numpy() for names in (sources, [target]))
    in_test, in_val = (pc.equal(split, name).to_numpy() for name in (TEST, VAL))

    def at(positions: Int, mask: NDArray[np.bool_]) -> Int:
        found: Int = positions[mask[positions]]
        return found

    test = at(data.test, of_target)
    seen = replace(
        data,
        splits=_seen(data.splits, sources, target),
        labels=np.where(of_source | (of_target & in_test), data.labels, -1),
        train=at(data.train, of_source | of_target),
        val=at(data.val, of_source),
        test=test,
        groups=np.unique(data.groups[of_target[data.test]], return_inverse=True)[1],
        source_test=at(data.test, of_source),
    )
    val = [np.flatnonzero(mask & in_val) for mask in (of_source, of_target)]
    train = [at(data.train, mask) for mask in (of_source, of_target)]
    held_out = val if min(map(len, val)) >= HELD_OUT else train
    return Shift(
        target, sources, seen, Domains(train[0], train[1], (held_out[0], held_out[1]), np.flatnonzero(of_source))
    )
