"""Runs every fit of a transfer: strategies x encoders x label fractions x seeds, and the from-scratch baseline.

Each fit runs on one thread and several run side by side, so that the number of workers changes no bit.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ssl_tasks.transfer import BASELINE, strategy
from ssl_tasks.transfer.base import Context, FloatArray, IntArray, Prediction, Strategy, Task
from ssl_tasks.transfer.budgets import draw
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.metrics import score
from ssl_tasks.transfer.tables import FROM_SCRATCH, RANDOM_INIT


@dataclass(frozen=True)
class Plan:
    """What to run."""

    strategies: Sequence[str]
    fractions: Sequence[float]
    seeds: Sequence[int]
    metric: str
    workers: int
    """Fits side by side; 0 for one per core."""


@dataclass(frozen=True)
class Fit:
    """One fit and what became of the labelled test rows."""

    strategy: str
    method: str
    label_fraction: float
    seed: int
    num_labels: int
    predicted: IntArray
    """(T,)"""
    confidence: FloatArray
    """(T,) probability of the predicted class."""
    likelihood: FloatArray
    """(T,) probability of the true class."""
    values: dict[str, float]
    chosen: dict[str, float]
    text: str = ""
    seconds: float = 0.0
    """Of the fit, on one thread; 0 where another seed's fit on the same rows was shared."""


def evaluate(
    plan: Plan,
    data: Labelled,
    encoders: Mapping[str, Callable[[], FloatArray]],
    context: Context,
    stop: threading.Event,
) -> list[Fit]:
    """All fits, ordered by strategy, encoder, label fraction and seed; the baseline comes last.

    Args:
        encoders: name of the method to a loader of its embeddings (N, D); one is held at a time.
        stop: set before the fits that still run are waited for, so that `context` can end them.
    """
    budgets = {(f, seed): draw(data.splits, f, seed) for f in plan.fractions for seed in plan.seeds}
    fits: list[Fit] = []
    positions = np.arange(data.splits.num_rows)
    with _one_thread_each(plan.workers, stop) as pool:
        for method, load in encoders.items():
            features = load()
            reused = replace(context, method=method, features=features)
            for name in plan.strategies:
                found = strategy(name)
                if method == RANDOM_INIT and found.untrained == BASELINE:
                    continue
                rows = positions if found.needs == "payload" else found.prepare(features[data.train])(features)
                fits += _run(pool, found, method, rows, budgets, data, plan, reused)
        scratch = _run(pool, strategy(BASELINE), FROM_SCRATCH, positions, budgets, data, plan, context)
    fits += scratch
    for name in plan.strategies:
        if strategy(name).untrained == BASELINE and RANDOM_INIT in encoders:  # it would be the same fits again
            fits += [replace(fit, strategy=name, method=RANDOM_INIT, seconds=0.0) for fit in scratch]
    rank = {name: place for place, name in enumerate([*plan.strategies, BASELINE])}
    return sorted(fits, key=lambda fit: rank[fit.strategy])


def _run(
    pool: ThreadPoolExecutor,
    found: Strategy,
    method: str,
    rows: FloatArray | IntArray,
    budgets: Mapping[tuple[float, int], IntArray],
    data: Labelled,
    plan: Plan,
    context: Context,
) -> list[Fit]:
    val, test = rows[data.val], rows[data.test]
    futures: dict[tuple[bytes, int], Future[tuple[Prediction, float]]] = {}
    fits = []

    def key_of(positions: IntArray, seed: int) -> tuple[bytes, int]:
        return positions.tobytes(), seed if found.seeded else 0  # all labels are the same rows under every seed

    for (_, seed), positions in budgets.items():
        key = key_of(positions, seed)
        if key not in futures:
            task = Task(
                train=rows[positions],
                labels=data.labels[positions],
                val=val,
                val_labels=data.labels[data.val],
                test=test,
                num_classes=len(data.classes),
                seed=seed,
                metric=plan.metric,
                context=context if found.needs == "payload" else None,
            )
            futures[key] = pool.submit(_timed, found, task)
    told: set[tuple[bytes, int]] = set()
    for (fraction, seed), positions in budgets.items():
        prediction, seconds = futures[key_of(positions, seed)].result()
        fit = _fit(found.name, method, fraction, seed, len(positions), prediction, data.labels[data.test])
        shared = key_of(positions, seed) in told
        told.add(key_of(positions, seed))
        fits.append(replace(fit, seconds=0.0 if shared else seconds))
    return fits


def _timed(found: Strategy, task: Task) -> tuple[Prediction, float]:
    began = time.monotonic()
    return found.fit(task), time.monotonic() - began


def _fit(
    name: str, method: str, fraction: float, seed: int, num_labels: int, prediction: Prediction, labels: IntArray
) -> Fit:
    scores = prediction.scores
    index, predicted = np.arange(len(labels)), scores.argmax(axis=1)
    return Fit(
        strategy=name,
        method=method,
        label_fraction=fraction,
        seed=seed,
        num_labels=num_labels,
        predicted=predicted,
        confidence=scores[index, predicted],
        likelihood=scores[index, labels],
        values=score(labels, scores),
        chosen=prediction.chosen,
        text=prediction.text,
    )


@contextmanager
def _one_thread_each(workers: int, stop: threading.Event) -> Iterator[ThreadPoolExecutor]:
    import torch
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, initializer=torch.set_num_threads, initargs=(1,))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted as `converged` in what a fit chose
        try:
            yield pool
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)  # a failure or Ctrl-C waits for the running fits only
            torch.set_num_threads(before)
