"""Successive halving by Ray Tune: trials are trained rung by rung, and at each rung most end there.

The scheduler is ASHA (Li et al., arXiv 1810.05934, algorithm 2) in Tune's form, which stops a trial at a rung unless it
is among the best 1/reduction of those that were there before it, and pauses none. So the first trial always goes
through. What a rung is, and how a trial goes on from the one before, is the caller's.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler

from ssl_tasks.cluster.connect import connection
from ssl_tasks.errors import PretextflowError

METRIC, RESOURCE = "value", "resource"
ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the command's; Tune would first end the rungs that are under way
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output ignores verbose=0 and prints a table
}


@dataclass(frozen=True)
class Reached:
    """A trial has come to a rung, or failed on the way there."""

    trial: int
    rung: int
    value: float
    """NaN where it failed."""
    error: str | None
    goes_on: bool
    out_of_budget: bool
    """It ends here because its next rung would take more steps than are left."""


def halve(
    run: Callable[[int, int], float],
    steps: Sequence[Sequence[int]],
    told: Callable[[Reached], None],
    began: Callable[[int], None] = lambda _trial: None,
    *,
    store: str,
    storage: Any = None,
    address: str | None = None,
    num_cpus: int = 0,
    resources: Mapping[str, float] | None = None,
    reduction: int = 3,
    jobs: int = 1,
    budget: int | None = None,
) -> None:
    """Train trials in their order, until all have ended or the budget is spent.

    Args:
        run: `run(trial, rung)` trains to the rung and gives the metric there, where more is better; called in a process
            of Ray, from the trial's first rung on, each after the one before. Picklable.
        steps: for each trial the optimizer steps that it has taken at each rung, ascending; as many rungs in each.
        told: called in this process for every rung that a trial comes to.
        began: called in this process with every trial that starts.
        store: folder for Tune's own files, of the file system `storage` (None: this machine's).
        num_cpus, resources: what a local Ray declares.
        reduction: a trial goes on from a rung where it is at least as good as the best 1/reduction of those before it.
        jobs: trials at a time.
        budget: most steps of all trials together. Begun rungs of other trials (`jobs` above 1) are cut short by it.

    Raises:
        RequestError: no Ray cluster answers at the address.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    watch = _Watch(steps, told, math.inf if budget is None else budget)
    scheduler = ASHAScheduler(
        time_attr=RESOURCE, metric=METRIC, mode="max", grace_period=1, reduction_factor=reduction,
        max_t=reduction ** (len(steps[0]) - 1),
    )  # fmt: skip
    with connection(address, num_cpus=num_cpus, resources=resources):
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it would say of a trial stands in its row
        trainable = tune.with_parameters(_Rungs, run=run, num_rungs=len(steps[0]), reduction=reduction)
        tune.Tuner(
            # a byte: Tune takes no empty request, and the training asks itself for the CPUs and GPUs that it needs
            tune.with_resources(trainable, tune.PlacementGroupFactory([{"memory": 1}])),
            param_space={"trial": tune.grid_search(list(range(len(steps))))},
            tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=jobs, reuse_actors=True),
            run_config=tune.RunConfig(
                name="tune", storage_path=store, storage_filesystem=storage, stop=watch,
                # else Tune saves every trial that ends, and what a trial is stands in the caller's store
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[_Teller(watch, began)], verbose=0,
            ),
        ).fit()  # fmt: skip


class _Rungs(tune.Trainable):  # type: ignore[misc]  # Ray is untyped
    """A trial: each step of Tune's takes it to its next rung."""

    def setup(self, config: dict[str, Any], run: Callable[[int, int], float], num_rungs: int, reduction: int) -> None:
        self.run, self.num_rungs, self.reduction = run, num_rungs, reduction
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        self.trial, self.rung = int(new_config["trial"]), -1
        return True

    def step(self) -> dict[str, Any]:
        self.rung += 1
        found = {"trial": self.trial, "rung": self.rung}
        try:
            value = self.run(self.trial, self.rung)
        except Exception as error:  # whatever it is, it is this trial's and not the search's
            text = str(error) if isinstance(error, PretextflowError) else f"{type(error).__name__}: {error}"
            # without a resource the scheduler takes no notice
            return {**found, METRIC: math.nan, "error": " ".join(text.split()), "done": True}
        last = self.rung == self.num_rungs - 1
        return {**found, METRIC: value, RESOURCE: self.reduction**self.rung, "done": last}


class _Here:
    """Tune writes what it calls into its files too, which nobody reads; what is told to, as a console, cannot be."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Watch(_Here, tune.Stopper):  # type: ignore[misc]  # Ray is untyped
    """Holds the search to its budget, and remembers what became of each trial."""

    def __init__(self, steps: Sequence[Sequence[int]], told: Callable[[Reached], None], budget: float) -> None:
        self.costs = [[b - a for a, b in zip((0, *rungs), rungs, strict=False)] for rungs in steps]
        self.told, self.left = told, budget
        self.cut: set[int] = set()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial cannot go on, by the budget."""
        trial, rung = result["trial"], result["rung"]
        if "error" in result:
            return True
        self.left -= self.costs[trial][rung]
        if any(cost > self.left for cost in self.costs[trial][rung + 1 : rung + 2]):
            self.cut.add(trial)
        return trial in self.cut

    def stop_all(self) -> bool:
        """Whether not even the cheapest rung is left."""
        return self.left < min(cost for costs in self.costs for cost in costs)


class _Teller(_Here, tune.Callback):  # type: ignore[misc]  # Ray is untyped
    def __init__(self, watch: _Watch, began: Callable[[int], None]) -> None:
        self.watch, self.began = watch, began

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_info: Any) -> None:
        self.began(trial.config["trial"])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_info: Any) -> None:
        number = result["trial"]
        self.watch.told(
            Reached(
                number, result["rung"], float(result[METRIC]), result.get("error"), not result["done"],
                number in self.watch.cut,
            )
        )  # fmt: skip

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_info: Any) -> None:
        rung = (trial.last_result or {}).get("rung", -1) + 1
        self.watch.told(Reached(trial.config["trial"], rung, math.nan, "the trial's process ended", False, False))
