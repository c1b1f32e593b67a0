"""transfer: what the encoder is worth on the labels there are, against baselines.

Every strategy runs on the pretrained encoder, on the same network untrained (`random_init`) and on raw input, for
every label budget and seed; `from_scratch` trains that network on the same labelled rows, and `majority` always says
the most frequent class. Hyper-parameters are chosen on val. Differences carry 95% intervals from a bootstrap over
seeds and test groups, and p-values corrected for the number of comparisons. With `domains` the labels are of some
domains and the test rows of another, for each target in turn, and the gap between them is measured too.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ssl_tasks import transfer as strategies_there_are
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import execution
from ssl_tasks.errors import StageError
from ssl_tasks.schema import (
    COMPARISONS_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    PRETRAINED_FILE,
    RANDOM_INIT_FILE,
    STATS_FILE,
    TRANSFER,
)
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.transfer import kinds
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.tables import (
    CHOICES,
    CHOICES_FILE,
    COMPARISONS,
    DOMAINS_FILE,
    FAILURES,
    FAILURES_FILE,
    PREDICTIONS,
    RANDOM_INIT,
    RAW_INPUT,
    RULES_FILE,
)
from ssl_tasks.transfer.targets import CLASSIFICATION

if TYPE_CHECKING:
    from ssl_tasks.transfer.base import FloatArray
    from ssl_tasks.transfer.evaluate import Plan
    from ssl_tasks.transfer.fits import Failure

MAX_SEED = 2**63
MAX_SEEDS = 1000
Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]
T = TypeVar("T")


class TransferConfig(Options):
    """Section `transfer`."""

    task: Literal["classification", "multi_label", "regression", "retrieval"] = "classification"
    """What is predicted: one class a row, several (`ingest.labels_column`), or a number (`ingest.number_column`). Of
    `retrieval` nothing: labelled train rows are ranked for each test row, and those of its class should come first."""
    strategies: tuple[str, ...] = ("linear_probe", "knn")
    """The verdict speaks of the first one. Empty: no transfer, for data without labels. Where it is left out, a task
    that cannot be done so has others: ridge and knn for numbers, retrieval for retrieval."""
    label_fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.01, 0.1, 1.0)
    """Of the labelled train rows, class by class where each has one; a larger budget contains the smaller ones."""
    labels_per_class: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Further budgets: so many labelled train rows of every class; nested likewise."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    """Draws of the labelled rows, and of the weights where a fit draws any; a number n stands for 0 .. n-1."""
    metric: str = "accuracy"
    """What is chosen by on val, and what summary and verdict speak of: accuracy, balanced_accuracy or macro_f1; for
    multi_label macro_f1, micro_f1, subset_accuracy or hamming_loss, for regression rmse, mae or r2, for retrieval
    mean_average_precision, recall_at_1, recall_at_5 or recall_at_10; the first of them where it is left out. All are in
    the tables."""
    bootstrap: int = Field(2000, ge=100)
    """Replicates behind each interval; more where so many comparisons are made that correcting for them needs it."""
    raw_input: bool = True
    """Whether the strategies run on raw input too: normalized, flattened, and averaged down to 1,024 values."""
    slow_rows: int = Field(5000, ge=2)
    """Most labelled rows of one fit of a slow strategy: rbf_svm, random_forest, gradient_boosting."""
    seed: Seed = 0
    """Of the bootstrap; the recipe's seed where the section does not set it."""
    workers: int = execution(0, ge=0)
    """Fits side by side, one thread each; 0 for one per core."""
    device: str = execution("auto")
    """Where networks are trained: `auto` is a GPU where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("task") not in kinds.KINDS:
            return given
        kind = kinds.of(given["task"])
        return {"strategies": kind.strategies, "metric": kind.choices[0], **given}

    @field_validator("strategies")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        task = info.data.get("task")
        for name in value:
            found = strategies_there_are.strategy(name)
            if name == strategies_there_are.BASELINE:
                raise ValueError(f"{name} runs as a baseline of the others and is not listed")
            if task and task not in found.tasks:
                able = ", ".join(strategies_there_are.names_for(task))
                raise ValueError(f"{name} cannot do transfer.task={task}; what can: {able}")
        return _distinct(value)

    @model_validator(mode="after")
    def _domains_where_needed(self) -> Self:
        if self.domains.given and self.task != CLASSIFICATION:
            raise ValueError(f"domains: task={self.task} is not measured across domains; classification is")
        for name in self.strategies:
            if strategies_there_are.strategy(name).adapts and not self.domains.given:
                raise ValueError(
                    f"strategies: {name} adapts to a domain without labels; name it in transfer.domains.target, or set "
                    "transfer.domains.leave_one_out=true"
                )
        return self

    @field_validator("strategies")
    @classmethod
    def _with_encoders(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        uses = {name: strategies_there_are.strategy(name).encoders for name in value}
        several = [name for name, use in uses.items() if use == "several"]
        given = info.data.get("encoders", ("refused",))
        if several and not given:
            raise ValueError(
                f"{', '.join(several)} combine{'s' * (len(several) == 1)} encoders; name others beside the run's own "
                "in transfer.encoders, as runs or as fingerprints of pretrain artifacts"
            )
        if value and info.data.get("encoders") and set(uses.values()) <= {"one"}:
            raise ValueError(f"{', '.join(value)} use the run's own encoder only; leave out transfer.encoders")
        return value

    @field_validator("metric")
    @classmethod
    def _of_the_task(cls, value: str, info: ValidationInfo) -> str:
        task = info.data.get("task")
        if task and value not in kinds.of(task).choices:
            raise ValueError(
                f"{value!r} is no metric of transfer.task={task}; expected {', '.join(kinds.of(task).choices)}"
            )
        return value

    @field_validator("labels_per_class")
    @classmethod
    def _where_there_are_single_classes(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        task = info.data.get("task")
        if value and task in ("multi_label", "regression"):
            raise ValueError(f"transfer.task={task} has no single classes to count by; use label_fractions")
        return value

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

    @field_validator("label_fractions", "labels_per_class")
    @classmethod
    def _ascending(cls, value: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(sorted(set(value)))  # type: ignore[type-var]  # numbers, by the fields' types


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


def run(
    config: TransferConfig, out: Output, normalize: Artifact, split: Artifact, pretrain: Artifact, embed: Artifact
) -> Artifact:
    """Evaluate the encoder, or write empty tables where no strategy is listed.

    Raises:
        RequestError: strategies are listed and the labels do not suffice for them.
        StageError: all fits of the first strategy failed, or of a baseline of it.
    """
    if not config.strategies:
        empty = {METRICS_FILE: TRANSFER, COMPARISONS_FILE: COMPARISONS, PREDICTIONS_FILE: PREDICTIONS}
        for name, schema in {**empty, CHOICES_FILE: CHOICES, FAILURES_FILE: FAILURES}.items():
            out.table(name, schema.empty_table())
        return out.artifact(rows=0, measured={"summary": [], "skipped": "transfer.strategies is empty"})

    from ssl_tasks.device import pick
    from ssl_tasks.transfer import checks, data, domains, evaluate, further, raw, results, shifted
    from ssl_tasks.transfer.context import make_context

    labelled = data.load(split, () if config.domains.given else config.labels_per_class, config.task)
    if config.domains.given:
        domains.check(labelled.splits, config.domains, config.labels_per_class)
    info = pretrain.json("encoder.json")
    method = info["method"]
    encoders = {
        method: lambda: data.embeddings(embed, PRETRAINED_FILE, labelled.splits),
        RANDOM_INIT: lambda: data.embeddings(embed, RANDOM_INIT_FILE, labelled.splits),
    }
    if config.raw_input:
        encoders[RAW_INPUT] = lambda: raw.features(normalize, info["modality"], normalize.json(STATS_FILE))
    stop, device = threading.Event(), pick(config.device, "transfer.device")
    others = further.read(config.encoders, out.uri)
    further.check(others, normalize.json(STATS_FILE), pretrain.fingerprint)
    out.read.update({f"encoder {place}": one.artifact.fingerprint for place, one in enumerate(others, start=1)})
    context = make_context(config, normalize, pretrain, labelled.train, labelled.classes, device, stop, others)
    if checks.needed(config.strategies):
        checks.check(config.strategies, context.blueprint())

    @functools.lru_cache(maxsize=1)  # those of one method at a time
    def features(method: str) -> list[FloatArray]:
        weights: further.Weights = "initial" if method == RANDOM_INIT else "encoder"
        return [further.embed(one, weights, normalize, labelled.train, device) for one in others]

    measured: dict[str, Any] = {}
    if config.domains.given:
        targets = domains.shifts(labelled, config.domains)
        found = shifted.evaluate_shifts(_plan(config), labelled, targets, encoders, context, stop, features)
        labelled, fits, failures = found.data, found.fits, found.failures
        out.table(DOMAINS_FILE, shifted.table(found.of_targets, config.metric))
        measured["domains"] = shifted.summary(found.of_targets, method, config.metric)
    else:
        fits, failures = evaluate.evaluate(_plan(config), labelled, encoders, context, stop, features)
    metrics, choices = results.metrics_table(fits), results.choices_table(fits)
    comparisons = results.compare(fits, method, labelled, config.bootstrap, config.seed)
    summary = results.summary(fits, comparisons, method, config.metric, config.task)
    _require(config.strategies[0], summary, failures)
    out.table(METRICS_FILE, metrics)
    out.table(COMPARISONS_FILE, comparisons)
    out.table(CHOICES_FILE, choices)
    out.table(FAILURES_FILE, results.failures_table(failures))
    if told := results.rules_table(fits):
        out.table(RULES_FILE, told)
    results.write_predictions(out, PREDICTIONS_FILE, fits, labelled)
    return out.artifact(
        rows=metrics.num_rows,
        measured={
            "summary": summary,
            "metric": config.metric,
            "method": method,
            "strategies": list(strategies_there_are.with_counterparts(config.strategies)),
            **({"encoders": [method, *(one.name for one in others)]} if others else {}),
            "seeds": len(config.seeds),
            "classes": len(labelled.classes),
            **({} if config.task == CLASSIFICATION else {"task": config.task, "class_names": labelled.classes}),
            "labelled": {"val": len(labelled.val), "test": len(labelled.test)},
            "test_groups": labelled.num_groups,
            "scratch": results.scratch_facts(fits, config.scratch.steps),
            "fit_seconds": results.fit_seconds(fits),
            "capped": results.capped(fits),
            "failed": len(failures),
            "warnings": results.warnings(fits, failures),
            **measured,
        },
    )


def _plan(config: TransferConfig) -> Plan:
    from ssl_tasks.transfer.budgets import Budget
    from ssl_tasks.transfer.evaluate import Plan

    budgets = [Budget(fraction=fraction) for fraction in config.label_fractions]
    budgets += [Budget(per_class=count) for count in config.labels_per_class]
    names = strategies_there_are.with_counterparts(config.strategies)
    return Plan(names, budgets, config.seeds, config.metric, config.workers, config.slow_rows)


def _require(first: str, summary: Sequence[Mapping[str, Any]], failures: Sequence[Failure]) -> None:
    """The verdict speaks of the first strategy: without it there is no result."""
    if not any(line["strategy"] == first for line in summary):
        error = next((one.error for one in failures if one.strategy in (first, strategies_there_are.BASELINE)), "")
        raise StageError(f"transfer: no fit of {first} has all its baselines; the first failure: {error}")


def _versions(config: TransferConfig) -> dict[str, int]:
    listed = strategies_there_are.with_counterparts(config.strategies)
    names = [*listed, strategies_there_are.BASELINE] if listed else []
    return {f"transfer.{name}": strategies_there_are.strategy(name).version for name in names}


STAGE = Stage("transfer", TransferConfig, ("normalize", "split", "pretrain", "embed"), run, version=2, parts=_versions)
