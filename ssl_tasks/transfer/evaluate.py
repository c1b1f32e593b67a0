"""Runs every fit of a transfer: strategies x encoders x label budgets x seeds, and the baselines.

Each fit runs on one thread and several run side by side (`runners`), so that the number of workers changes no bit. A
fit that fails is noted with its error, and the others finish.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.errors import PretextflowError
from ssl_tasks.transfer import BASELINE, kinds, strategy
from ssl_tasks.transfer.base import Context, FloatArray, IntArray, Prediction, Strategy, Task
from ssl_tasks.transfer.budgets import Budget, draw, limit, num_labelled
from ssl_tasks.transfer.data import Labelled
from ssl_tasks.transfer.fits import Failure, Fit
from ssl_tasks.transfer.rows import Held, Rows, TrainRows, hold
from ssl_tasks.transfer.runners import Runner
from ssl_tasks.transfer.strategies import majority
from ssl_tasks.transfer.tables import FROM_SCRATCH, MAJORITY, RANDOM_INIT, RAW_INPUT

NOT_THE_FITS = (PretextflowError, MemoryError, OSError)
"""Of the request or of the machine: the stage ends, and may be tried again."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    strategies: Sequence[str]
    budgets: Sequence[Budget]
    seeds: Sequence[int]
    metric: str
    slow_rows: int
    """Most train rows of a fit of a slow strategy."""


@dataclass(frozen=True)
class _Done:
    """What a worker hands back; the budgets that ask for the same rows share it."""

    values: dict[str, float]
    predicted: NDArray[Any]
    confidence: FloatArray
    likelihood: FloatArray
    chosen: dict[str, float]
    seconds: float
    text: str
    examples: NDArray[np.uint8] | None = None


def evaluate(
    plan: Plan,
    data: Labelled,
    encoders: Mapping[str, Callable[[], Rows]],
    context: Context | None,
    runner: Runner,
    further: Callable[[str], Sequence[Rows]] = lambda method: (),
) -> tuple[list[Fit], list[Failure]]:
    """All fits, ordered by strategy, encoder, label budget and seed, the baselines last; and those that failed.

    Args:
        encoders: name of the method to a loader of its embeddings (N, D), an array or what is read in parts, or of its
            feature maps; one is held at a time.
        context: for what trains on the samples; None leaves out the baselines `from_scratch` and `majority`, and so
            does a task that they are not for.
        runner: where they run.
        further: a method to embeddings by further encoders, for strategies that combine them with those of the method.
    """
    budgets = {(budget, seed): draw(data.splits, budget, seed) for budget in plan.budgets for seed in plan.seeds}
    everything: list[Fit | Failure] = []
    positions = runner.share(np.arange(data.splits.num_rows))
    drawn = np.unique(np.concatenate([*budgets.values()]))  # first, so that a fit on all of them needs no copy
    asked = np.concatenate([drawn, np.setdiff1d(np.concatenate([data.val, data.test, data.source_test]), drawn)])
    runs = _Runs(runner, plan, data, budgets, runner.share(data), positions, asked)
    for method, load in encoders.items():
        reused = replace(context, method=method) if context else None
        everything += runs.on_encoder(method, load, reused, further)  # whose rows are gone when it returns
    scratch: list[Fit | Failure] = []
    if context is not None and data.task in majority.STRATEGY.tasks:
        bare = runner.share(context)
        scratch = runs.submit(strategy(BASELINE), FROM_SCRATCH, positions, bare)()
        everything += [*scratch, *runs.submit(majority.STRATEGY, MAJORITY, positions, bare)()]
    for name in plan.strategies:
        if strategy(name).untrained == BASELINE and RANDOM_INIT in encoders:  # it would be the same fits again
            everything += [_again(result, name) for result in scratch]
    rank = {name: place for place, name in enumerate([*plan.strategies, BASELINE, MAJORITY])}
    everything.sort(key=lambda result: rank[result.strategy])
    fits = [result for result in everything if isinstance(result, Fit)]
    return fits, [result for result in everything if isinstance(result, Failure)]


def _again(result: Fit | Failure, name: str) -> Fit | Failure:
    """A fit from scratch as that of the strategy `name` on the untrained network."""
    if isinstance(result, Failure):
        return replace(result, strategy=name, method=RANDOM_INIT)
    return replace(result, strategy=name, method=RANDOM_INIT, seconds=0.0)


def _by_preparation(names: Sequence[str], method: str) -> list[list[str]]:
    """Strategies that share prepared rows run side by side; raw input has no network to train on."""
    groups: dict[object, list[str]] = {}
    for name in names:
        found = strategy(name)
        if method == RANDOM_INIT and found.untrained == BASELINE:
            continue  # training from scratch is that
        if (found.needs != "payload" and found.encoders == "one") or method != RAW_INPUT:
            groups.setdefault((found.needs, found.encoders, found.prepare), []).append(name)
    return list(groups.values())


@dataclass(frozen=True)
class _Runs:
    runner: Runner
    plan: Plan
    data: Labelled
    budgets: Mapping[tuple[Budget, int], IntArray]
    shared: Any
    """The data, as the runner shares it."""
    positions: Any
    """(N,) of all rows, likewise."""
    asked: IntArray
    """Of the rows that any fit trains on, then of those that it chooses by or scores; ascending in both parts."""

    def on_encoder(
        self,
        method: str,
        load: Callable[[], Rows],
        context: Context | None,
        further: Callable[[str], Sequence[Rows]],
    ) -> list[Fit | Failure]:
        """The fits of all strategies on one encoder."""
        done: list[Fit | Failure] = []
        groups = _by_preparation(self.plan.strategies, method)
        features = load() if groups else None
        for names in groups:
            rows, reused, widths = self._prepared(strategy(names[0]), method, features, context, further)
            waiting = [self.submit(strategy(name), method, rows, reused, widths) for name in names]
            done += [result for collect in waiting for result in collect()]
            del rows, reused, waiting  # before the next group's rows are prepared
        return done

    def _prepared(
        self,
        found: Strategy,
        method: str,
        features: Rows | None,
        context: Context | None,
        further: Callable[[str], Sequence[Rows]],
    ) -> tuple[Any, Any, list[int]]:
        """Rows and context, as the runner shares them, and the widths of the encoders whose rows stand side by side."""
        if found.needs != "embeddings":
            return self.positions, self.runner.share(replace(context, features=features)) if context else None, []
        by_encoder = [features, *(further(method) if found.encoders != "one" else ())]
        prepare = found.prepare(TrainRows(by_encoder, self.data.train))
        sides = hold(by_encoder, self.asked)
        rows = Held(self.asked, prepare(sides[0] if len(sides) == 1 else np.hstack(sides)))
        return self.runner.share(rows), None, [side.shape[1] for side in sides]

    def submit(
        self,
        found: Strategy,
        method: str,
        rows: Any,
        context: Any,
        widths: Sequence[int] = (),
    ) -> Callable[[], list[Fit | Failure]]:
        """Start the fits of one strategy on one encoder; what is returned waits for them.

        Args:
            rows: (N, D) of those that are asked for, or (N,), as the runner shares them; so is the context, where there
                is one.
        """
        waits: dict[tuple[bytes, int], Callable[[], _Done | str]] = {}
        keys = {}
        for (budget, seed), drawn in self.budgets.items():
            kept = limit(self.data.splits, drawn, self.plan.slow_rows, seed) if found.slow else drawn
            # all labels are the same rows under every seed
            key = keys[budget, seed] = kept.tobytes(), seed if found.seeded else 0
            if key not in waits:
                given = context if found.needs != "embeddings" else None
                waits[key] = self.runner.submit(
                    _attempt, found, rows, kept, seed, self.shared, self.plan.metric, given, widths
                )

        def collect() -> list[Fit | Failure]:
            told: set[tuple[bytes, int]] = set()
            results: list[Fit | Failure] = []
            total = num_labelled(self.data.splits)
            for (budget, seed), drawn in self.budgets.items():
                key = keys[budget, seed]
                fraction = len(drawn) / total if budget.per_class else budget.fraction
                cell = (found.name, method, fraction, budget.per_class, seed)
                done = waits[key]()
                results.append(_result(cell, len(drawn), done, is_shared=key in told))
                told.add(key)
            return results

        return collect


def _result(
    cell: tuple[str, str, float, int, int], num_labels: int, done: _Done | str, *, is_shared: bool
) -> Fit | Failure:
    if isinstance(done, str):
        return Failure(*cell, error=done)
    seconds = 0.0 if is_shared else done.seconds
    answers = (done.predicted, done.confidence, done.likelihood)
    return Fit(*cell, num_labels, *answers, done.values, done.chosen, done.text, done.examples, seconds)


def _attempt(
    found: Strategy,
    rows: Held | IntArray,
    positions: IntArray,
    seed: int,
    data: Labelled,
    metric: str,
    context: Context | None,
    widths: Sequence[int],
) -> _Done | str:
    """Fit and score the labelled test rows, or the error's text."""
    began = time.monotonic()
    task = Task(
        train=rows[positions],
        labels=data.labels[positions],
        val=rows[data.val],
        val_labels=data.labels[data.val],
        test=rows[np.concatenate([data.test, data.val, data.source_test])],  # val's value compares strategies
        num_classes=data.num_outputs,
        seed=seed,
        metric=metric,
        context=context,
        task=data.task,
        widths=widths,
    )
    try:
        prediction = found.fit(task)
    except NOT_THE_FITS:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    done = _done(prediction, data, metric, time.monotonic() - began)
    return replace(done, chosen={**done.chosen, "train_rows": float(len(positions))}) if found.slow else done


def _done(prediction: Prediction, data: Labelled, metric: str, seconds: float) -> _Done:
    kind, chosen = kinds.of(data.task), dict(prediction.chosen)
    asked = data.labels[np.concatenate([data.test, data.val, data.source_test])]
    given = prediction.scores if prediction.judged is None else prediction.judged(asked)
    ends = np.cumsum([len(data.test), len(data.val)])
    (labels, *others), (scores, *of_others) = np.split(asked, ends), np.split(given, ends)
    for name, there, found in zip(("val", "source"), others, of_others, strict=True):
        if len(there):
            chosen[f"{name}_{metric}"] = kind.score(there, found)[metric]
    predicted, likelihood, confidence = kind.answers(labels, scores)
    return _Done(
        values={**kind.score(labels, scores), **kind.ranked(labels, scores)},
        predicted=predicted,
        confidence=confidence,
        likelihood=likelihood,
        chosen=chosen,
        seconds=seconds,
        text=prediction.text,
        examples=prediction.examples,
    )
