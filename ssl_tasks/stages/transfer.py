"""transfer: what the encoder is worth on the labels there are, against two baselines.

Every strategy runs on the pretrained encoder and on the same network untrained (`random_init`), for every label
fraction and seed; `from_scratch` trains that network on the same labelled rows. Hyper-parameters are chosen on
val. Differences carry 95% intervals from a bootstrap over seeds and test groups.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator

from ssl_tasks import transfer as strategies_there_are
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import execution
from ssl_tasks.schema import (
    COMPARISONS_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    PRETRAINED_FILE,
    RANDOM_INIT_FILE,
    TRANSFER,
)
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.tables import CHOICES, CHOICES_FILE, COMPARISONS, PREDICTIONS, RANDOM_INIT, RULES_FILE

MAX_SEED = 2**63
MAX_SEEDS = 1000
Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]
T = TypeVar("T")


class TransferConfig(Options):
    """Section `transfer`."""

    strategies: tuple[str, ...] = ("linear_probe", "knn")
    """The verdict speaks of the first one. Empty: no transfer, for data without labels."""
    label_fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.01, 0.1, 1.0)
    """Of the labelled train rows, class by class; a larger budget contains the smaller ones."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    """Draws of the labelled rows, and of the weights where a fit draws any; a number n stands for 0 .. n-1."""
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = "accuracy"
    """What is chosen by on val, and what summary and verdict speak of. All metrics are in the tables."""
    bootstrap: int = Field(2000, ge=100)
    """Replicates behind each interval."""
    seed: Seed = 0
    """Of the bootstrap; the recipe's seed where the section does not set it."""
    workers: int = execution(0, ge=0)
    """Fits side by side, one thread each; 0 for one per core."""
    device: str = execution("auto")
    """Where networks are trained: `auto` is a GPU where there is one."""

    @field_validator("strategies")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            strategies_there_are.strategy(name)
            if name == strategies_there_are.BASELINE:
                raise ValueError(f"{name} runs as a baseline of the others and is not listed")
        return _distinct(value)

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        if not 1 <= value <= MAX_SEEDS:
            raise ValueError(f"a number of seeds is between 1 and {MAX_SEEDS:,}")
        return list(range(value))

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct(value)

    @field_validator("label_fractions")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(value)))


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def run(
    config: TransferConfig, out: Output, normalize: Artifact, split: Artifact, pretrain: Artifact, embed: Artifact
) -> Artifact:
    """Evaluate the encoder, or write empty tables where no strategy is listed.

    Raises:
        RequestError: strategies are listed and there are too few labels for them.
    """
    if not config.strategies:
        empty = {METRICS_FILE: TRANSFER, COMPARISONS_FILE: COMPARISONS, PREDICTIONS_FILE: PREDICTIONS}
        for name, schema in {**empty, CHOICES_FILE: CHOICES}.items():
            out.table(name, schema.empty_table())
        return out.artifact(rows=0, measured={"summary": [], "skipped": "transfer.strategies is empty"})

    from ssl_tasks.device import pick
    from ssl_tasks.transfer import checks, data, evaluate, results
    from ssl_tasks.transfer.context import make_context

    labelled = data.load(split)
    method = pretrain.json("encoder.json")["method"]
    encoders = {
        method: lambda: data.embeddings(embed, PRETRAINED_FILE, labelled.splits),
        RANDOM_INIT: lambda: data.embeddings(embed, RANDOM_INIT_FILE, labelled.splits),
    }
    plan = evaluate.Plan(config.strategies, config.label_fractions, config.seeds, config.metric, config.workers)
    stop, device = threading.Event(), pick(config.device, "transfer.device")
    context = make_context(config, normalize, pretrain, labelled.train, labelled.classes, device, stop)
    if checks.needed(config.strategies):
        checks.check(config.strategies, context.blueprint())
    fits = evaluate.evaluate(plan, labelled, encoders, context, stop)
    metrics, choices = results.metrics_table(fits), results.choices_table(fits)
    comparisons = results.compare(fits, method, labelled, config.bootstrap, config.seed)
    out.table(METRICS_FILE, metrics)
    out.table(COMPARISONS_FILE, comparisons)
    out.table(CHOICES_FILE, choices)
    if told := results.rules_table(fits):
        out.table(RULES_FILE, told)
    results.write_predictions(out, PREDICTIONS_FILE, fits, labelled)
    return out.artifact(
        rows=metrics.num_rows,
        measured={
            "summary": results.summary(metrics, comparisons, method, config.metric),
            "metric": config.metric,
            "method": method,
            "strategies": list(config.strategies),
            "seeds": len(config.seeds),
            "classes": len(labelled.classes),
            "labelled": {"val": len(labelled.val), "test": len(labelled.test)},
            "test_groups": labelled.num_groups,
            "scratch": results.scratch_facts(fits, config.scratch.steps),
            "fit_seconds": results.fit_seconds(fits),
        },
    )


def _versions(config: TransferConfig) -> dict[str, int]:
    names = [*config.strategies, strategies_there_are.BASELINE] if config.strategies else []
    return {f"transfer.{name}": strategies_there_are.strategy(name).version for name in names}


STAGE = Stage("transfer", TransferConfig, ("normalize", "split", "pretrain", "embed"), run, parts=_versions)
