"""How well single classes, domains and groups do: accuracy with its interval, on how many test rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.confusion import counts
from ssl_tasks.report.predictions import Fits, Int
from ssl_tasks.report.units import percent
from ssl_tasks.schema import DOMAIN, GROUP_ID, ROW, SPLITS_FILE
from ssl_tasks.shards import member

NORMAL = 1.959964
"""Quantile of the normal distribution for 95%."""
MOST = 30
"""Lines of a table, worst first."""
GROUP_ROWS, MOST_GROUPS = 10, 10
"""Test rows that a group needs to be judged alone, and lines of the table of groups."""


def wilson(share: float, number: int) -> tuple[float, float]:
    """95% interval of a share of `number` independent trials (Wilson, JASA 22, 1927); inside 0..1 for any share."""
    shrink = 1 + NORMAL**2 / number
    middle = (share + NORMAL**2 / (2 * number)) / shrink
    half = NORMAL / shrink * math.sqrt(share * (1 - share) / number + NORMAL**2 / (4 * number**2))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Slice:
    """A part of the test rows."""

    name: str
    rows: int
    accuracy: list[float]
    """At each budget, mean over seeds."""


def section(budgets: Sequence[Fits], split: Artifact) -> dict[str, Any]:
    """Tables by class, and by domain and group where there are several of them, for the template."""
    if not budgets:
        return {}
    classes = slices(budgets, [fits.truth for fits in budgets], budgets[0].classes)
    of_classes = _lines(classes, MOST)
    found = counts(budgets[-1])
    for line in of_classes:
        line["precision"] = _precision(found, budgets[-1].classes.index(line["name"]))
    known = _of_rows(split, np.unique(np.concatenate([fits.rows for fits in budgets])))
    domains = _by_column(budgets, known, DOMAIN)
    groups = [group for group in _by_column(budgets, known, GROUP_ID) if group.rows >= GROUP_ROWS]
    return {
        "budgets": [fits.budget for fits in budgets],
        "classes": of_classes,
        "more_classes": max(0, len(classes) - MOST),
        "domains": _lines(domains, MOST) if len(domains) > 1 else [],
        "more_domains": max(0, len(domains) - MOST),
        "groups": _lines(groups, MOST_GROUPS) if len(groups) > 1 else [],
        "more_groups": max(0, len(groups) - MOST_GROUPS),
    }


def slices(budgets: Sequence[Fits], parts: Sequence[Int], names: Sequence[str]) -> list[Slice]:
    """Those that have test rows, the worst at the largest budget first.

    Args:
        parts: for each budget (P,) number of the part that a prediction belongs to, -1 for none.
    """
    number = len(names)
    totals, right = [], []
    for fits, part in zip(budgets, parts, strict=True):
        known = part >= 0
        totals.append(np.bincount(part[known], minlength=number))
        right.append(np.bincount(part[known & fits.right], minlength=number))
    rows = totals[0] // budgets[0].num_seeds
    found = [
        Slice(names[place], int(rows[place]), [float(r[place] / t[place]) for r, t in zip(right, totals, strict=True)])
        for place in map(int, np.flatnonzero(rows))
    ]
    return sorted(found, key=lambda one: (one.accuracy[-1], one.name))


def _of_rows(split: Artifact, rows: Int) -> pa.Table:
    """Domain and group of some rows (ascending); the others may be far more."""
    batches = split.batches(SPLITS_FILE, [ROW, DOMAIN, GROUP_ID])
    return pa.concat_tables([batch.filter(pa.array(member(batch[ROW].to_numpy(), rows))) for batch in batches])


def _by_column(budgets: Sequence[Fits], known: pa.Table, column: str) -> list[Slice]:
    encoded = known[column].combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    rows = known[ROW].to_numpy()
    parts = [codes[np.searchsorted(rows, fits.rows)] for fits in budgets]
    return slices(budgets, parts, encoded.dictionary.to_pylist())


def _precision(found: Int, place: int) -> str:
    """Right ones among those that were called so; `found` is (C, C), see `confusion.counts`."""
    called = found[:, place].sum()
    return percent(found[place, place] / called) if called else "never"


def _lines(found: Sequence[Slice], most: int) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "rows": f"{one.rows:,}",
            "cells": [_cell(accuracy, one.rows) for accuracy in one.accuracy],
        }
        for one in found[:most]
    ]


def _cell(accuracy: float, rows: int) -> str:
    low, high = wilson(accuracy, rows)
    return f"{percent(accuracy)} ({100 * low:.1f} to {100 * high:.1f})"
