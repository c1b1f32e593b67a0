"""transfer: what the encoder is worth on the labels there are, against baselines.

Every strategy runs on the pretrained encoder, on the same network untrained (`random_init`) and on raw input, for
every label budget and seed; `from_scratch` trains that network on the same labelled rows, and `majority` always says
the most frequent class. Hyper-parameters are chosen on val. Differences carry 95% intervals from a bootstrap over
seeds and test groups, and p-values corrected for the number of comparisons. With `domains` the labels are of some
domains and the test rows of another, for each target in turn, and the gap between them is measured too.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from ssl_tasks import transfer as strategies_there_are
from ssl_tasks.adoption.reference import ROLE as ADOPTED
from ssl_tasks.artifact import Artifact
from ssl_tasks.config import execution
from ssl_tasks.errors import RequestError, StageError
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
from ssl_tasks.transfer.targets import CLASSIFICATION, DENSE

if TYPE_CHECKING:
    import torch

    from ssl_tasks.transfer.base import Context, FloatArray
    from ssl_tasks.transfer.data import Labelled
    from ssl_tasks.transfer.evaluate import Plan
    from ssl_tasks.transfer.fits import Failure
    from ssl_tasks.transfer.runners import Runner

MAX_SEED = 2**63
MAX_SEEDS = 1000
Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=MAX_SEED)]
T = TypeVar("T")


class TransferConfig(Options):
    """Section `transfer`."""

    task: Literal["classification", "multi_label", "regression", "retrieval", "segmentation", "localization"] = (
        "classification"
    )
    """What is predicted: one class a row, several (`ingest.labels_column`), or a number (`ingest.number_column`). Of
    `retrieval` nothing: labelled train rows are ranked for each test row, and those of its class should come first.
    `segmentation`: the class of each pixel (`ingest.masks`); `localization`: an image's largest box
    (`ingest.boxes`)."""
    strategies: tuple[str, ...] = ("linear_probe", "knn")
    """The verdict speaks of the first one. Empty: no transfer, for data without labels. Where it is left out, a task
    that cannot be done so has others: ridge and knn for numbers, retrieval for retrieval, segmentation for masks, boxes
    for boxes."""
    label_fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.01, 0.1, 1.0)
    """Of the labelled train rows, class by class where each has one; a larger budget contains the smaller ones."""
    labels_per_class: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Further budgets: so many labelled train rows of every class; nested likewise."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    """Draws of the labelled rows, and of the weights where a fit draws any; a number n stands for 0 .. n-1."""
    metric: str = "accuracy"
    """What is chosen by on val, and what summary and verdict speak of: accuracy, balanced_accuracy or macro_f1; for
    multi_label macro_f1, micro_f1, subset_accuracy or hamming_loss, for regression rmse, mae or r2, for retrieval
    mean_average_precision, recall_at_1, recall_at_5 or recall_at_10, for segmentation mean_iou, pixel_accuracy or
    mean_class_accuracy, for localization mean_box_iou or iou_over_half; the first of them where it is left out. All are
    in the tables."""
    bootstrap: int = Field(2000, ge=100)
    """Replicates behind each interval; more where so many comparisons are made that correcting for them needs it."""
    raw_input: bool = True
    """Whether the strategies run on raw input too: normalized, flattened, and averaged down to 1,024 values; for masks
    and boxes the pixels in their places, at most 64 a side."""
    slow_rows: int = Field(5000, ge=2)
    """Most labelled rows of one fit of a slow strategy: rbf_svm, random_forest, gradient_boosting."""
    seed: Seed = 0
    """Of the bootstrap; the recipe's seed where the section does not set it."""
    run_on: Literal["auto", "threads", "ray"] = execution("auto")
    """Fits are threads of this process or Ray tasks; `auto`: Ray where the run is connected to a cluster."""
    workers: int = execution(0, ge=0)
    """Threads: fits side by side, one thread each; 0 for one per core."""
    cpus_per_fit: float = execution(1.0, gt=0)
    """Ray: logical CPUs that a fit reserves. It computes on one thread; more leave memory for it."""
    gpus_per_fit: float = execution(0.0, ge=0)
    """Ray: GPUs that a fit reserves; several fits may have a share of one."""
    device: str = execution("auto")
    """Where networks are trained: `auto` is a GPU where there is one (Ray: where gpus_per_fit reserves one)."""

    @field_validator("cpus_per_fit", "gpus_per_fit")
    @classmethod
    def _whole(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError("above 1 Ray reserves whole ones")
        return value

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
                first = kinds.of(task).strategies[0]
                others = ", ".join(other for other in strategies_there_are.names_for(task) if other != first)
                more = f" (there are also {others})" if others else ""
                raise ValueError(f"{name} cannot do transfer.task={task}; use {first}{more}")
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
                f"{value!r} is not what transfer.task={task} is chosen by; expected {', '.join(kinds.of(task).choices)}"
            )
        return value

    @field_validator("labels_per_class")
    @classmethod
    def _where_there_are_single_classes(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        task = info.data.get("task")
        if value and task not in ("classification", "retrieval", None):
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
    config: TransferConfig,
    out: Output,
    normalize: Artifact,
    split: Artifact,
    pretrain: Artifact,
    embed: Artifact,
    augment: Artifact | None = None,
) -> Artifact:
    """Evaluate the encoder, or write empty tables where no strategy is listed.

    Args:
        augment: policy of the strategies that train on samples, where it is not that of the encoder's own training.

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
    from ssl_tasks.transfer import checks, data, domains, evaluate, further, joint, raw, results, shifted
    from ssl_tasks.transfer.context import make_context

    whole = not config.domains.given
    labelled = data.load(split, config.labels_per_class, config.task, normalize, whole=whole)
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
    stop, device = threading.Event(), _device(config)
    others = further.read(config.encoders, out.uri)
    adopted = pretrain.manifest.parents.get(ADOPTED, "")
    further.check(others, normalize.json(STATS_FILE), {pretrain.fingerprint, adopted})
    out.read.update({f"encoder {place}": one.artifact.fingerprint for place, one in enumerate(others, start=1)})
    context = make_context(config, normalize, pretrain, labelled.train, labelled.classes, device, stop, others, augment)
    if checks.needed(config.strategies):
        checks.check(config.strategies, context.blueprint())
    if strategies_there_are.any_joint(config.strategies):
        context = replace(context, targets=joint.load(split, labelled))
        joint.check(context.targets, labelled)

    here = pick("auto", "transfer.device") if _on_ray(config) else device
    if config.task in DENSE:
        local = make_context(config, normalize, pretrain, labelled.train, labelled.classes, here, stop, (), augment)
        encoders = _map_makers(local, labelled, [method, RANDOM_INIT, *([RAW_INPUT] if config.raw_input else [])])

    @functools.lru_cache(maxsize=2 if config.domains.given else 1)  # of one method at a time, but for several targets
    def features(method: str) -> list[FloatArray]:
        weights: further.Weights = "initial" if method == RANDOM_INIT else "encoder"
        return [further.embed(one, weights, normalize, labelled.train, here) for one in others]

    measured: dict[str, Any] = {}
    with _runner(config, stop) as runner:
        if config.domains.given:
            targets = domains.shifts(labelled, config.domains)
            found = shifted.evaluate_shifts(_plan(config), labelled, targets, encoders, context, runner, features)
            labelled, fits, failures = found.data, found.fits, found.failures
            num_fits = sum(len(of_target) for _, of_target in found.of_targets)
            out.table(DOMAINS_FILE, shifted.table(found.of_targets, config.metric))
            measured["domains"] = shifted.summary(found.of_targets, method, config.metric)
        else:
            fits, failures = evaluate.evaluate(_plan(config), labelled, encoders, context, runner, features)
            num_fits = len(fits)
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
            "warnings": results.warnings(num_fits, failures),
            **measured,
        },
    )


def _map_makers(context: Context, labelled: Labelled, methods: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Makers of the feature maps of the labelled rows, by name of the encoder."""
    from ssl_tasks.transfer import feature_maps

    known = labelled.splits["label"].is_valid().to_numpy()
    rows, train = np.flatnonzero(known), labelled.train[known[labelled.train]]

    def maker(method: str) -> Callable[[], Any]:
        network = None if method == RAW_INPUT else method
        return lambda: feature_maps.maps(context, network, rows, train, len(known))

    return {method: maker(method) for method in methods}


def _plan(config: TransferConfig) -> Plan:
    from ssl_tasks.transfer.budgets import Budget
    from ssl_tasks.transfer.evaluate import Plan

    budgets = [Budget(fraction=fraction) for fraction in config.label_fractions]
    budgets += [Budget(per_class=count) for count in config.labels_per_class]
    names = strategies_there_are.with_counterparts(config.strategies)
    return Plan(names, budgets, config.seeds, config.metric, config.slow_rows)


def _on_ray(config: TransferConfig) -> bool:
    return config.run_on == "ray" or (config.run_on == "auto" and "RAY_ADDRESS" in os.environ)


def _runner(config: TransferConfig, stop: threading.Event) -> AbstractContextManager[Runner]:
    if not _on_ray(config):
        from ssl_tasks.transfer.runners import threads

        return threads(config.workers, stop)
    from ssl_tasks.cluster.fits import ray_fits

    return ray_fits(os.environ.get("RAY_ADDRESS"), config.cpus_per_fit, config.gpus_per_fit)


def _device(config: TransferConfig) -> torch.device:
    """Of this machine, or, for Ray, of the nodes that reserve it for a fit."""
    import torch

    from ssl_tasks.device import pick

    if not _on_ray(config):
        return pick(config.device, "transfer.device")
    if config.device == "auto":
        return torch.device("cuda" if config.gpus_per_fit else "cpu")
    if config.device != "cpu" and not config.gpus_per_fit:
        raise RequestError(
            f"transfer.device: {config.device!r} on Ray needs a GPU for each fit, or a share of one; set "
            "transfer.gpus_per_fit, such as to 0.25"
        )
    return torch.device(config.device)


def _require(first: str, summary: Sequence[Mapping[str, Any]], failures: Sequence[Failure]) -> None:
    """The verdict speaks of the first strategy: without it there is no result."""
    if not any(line["strategy"] == first for line in summary):
        error = next((one.error for one in failures if one.strategy in (first, strategies_there_are.BASELINE)), "")
        raise StageError(f"transfer: no fit of {first} has all its baselines; the first failure: {error}")


def _versions(config: TransferConfig) -> dict[str, int]:
    listed = strategies_there_are.with_counterparts(config.strategies)
    names = [*listed, strategies_there_are.BASELINE] if listed else []
    return {f"transfer.{name}": strategies_there_are.strategy(name).version for name in names}


STAGE = Stage("transfer", TransferConfig, ("normalize", "split", "pretrain", "embed"), run, version=3, parts=_versions)
OF_ADOPTED = replace(STAGE, inputs=("normalize", "split", "adopt", "embed", "augment"))
"""In the DAG of an existing encoder."""
