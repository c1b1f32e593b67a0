"""transfer: what the encoder is worth on the labels there are, against baselines.

Every strategy runs on the pretrained encoder, on the same network untrained (`random_init`) and on raw input, for
every label budget and seed; `from_scratch` trains that network on the same labelled rows, and `majority` always says
the most frequent class. Hyper-parameters are chosen on val. Differences carry 95% intervals from a bootstrap over
seeds and test groups, and p-values corrected for the number of comparisons. With `domains` the labels are of some
domains and the test rows of another, for each target in turn, and the gap between them is measured too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ssl_tasks import transfer as strategies_there_are
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.schema import (
    COMPARISONS_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    TRANSFER,
)
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.transfer.config import TransferConfig
from ssl_tasks.transfer.tables import (
    CHOICES,
    CHOICES_FILE,
    COMPARISONS,
    DOMAINS_FILE,
    FAILURES,
    FAILURES_FILE,
    PREDICTIONS,
    RULES_FILE,
)
from ssl_tasks.transfer.targets import CLASSIFICATION

if TYPE_CHECKING:
    import torch

    from ssl_tasks.transfer.assembly import Assembly
    from ssl_tasks.transfer.data import Labelled
    from ssl_tasks.transfer.evaluate import Plan
    from ssl_tasks.transfer.fits import Failure, Fit
    from ssl_tasks.transfer.runners import Runner


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
        return _write_nothing(out)

    from ssl_tasks.transfer import results
    from ssl_tasks.transfer.assembly import EncoderArtifacts, assemble

    stop = threading.Event()
    device = _device(config)
    encoder = EncoderArtifacts(normalize, split, pretrain, embed, augment)
    made = assemble(config, encoder, out.uri, device, _here(config, device), stop)
    out.read.update({f"encoder {place}": one.artifact.fingerprint for place, one in enumerate(made.others, start=1)})
    measured: dict[str, Any] = {}
    if made.others:
        measured["encoders"] = [made.method, *(one.name for one in made.others)]
    with _runner(config, stop) as runner:
        labelled, fits, failures, num_fits = _evaluated(config, made, out, runner, measured)
    measured["warnings"] = results.warnings(num_fits, failures)
    return _write(config, out, labelled, made.method, fits, failures, measured)


def _evaluated(
    config: TransferConfig, made: Assembly, out: Output, runner: Runner, measured: dict[str, Any]
) -> tuple[Labelled, list[Fit], list[Failure], int]:
    """The rows that fits speak of, the fits, those that failed, and how many were made.

    What there is to say of domains goes to `out` and `measured`.
    """
    from ssl_tasks.transfer import domains, evaluate, shifted

    plan = _plan(config)
    if not config.domains.given:
        fits, failures = evaluate.evaluate(plan, made.labelled, made.encoders, made.context, runner, made.further)
        return made.labelled, fits, failures, len(fits)
    targets = domains.shifts(made.labelled, config.domains)
    found = shifted.evaluate_shifts(plan, made.labelled, targets, made.encoders, made.context, runner, made.further)
    out.table(DOMAINS_FILE, shifted.table(found.of_targets, config.metric))
    measured["domains"] = shifted.summary(found.of_targets, made.method, config.metric)
    return found.data, found.fits, found.failures, sum(len(of_target) for _, of_target in found.of_targets)


def _write_nothing(out: Output) -> Artifact:
    empty = {METRICS_FILE: TRANSFER, COMPARISONS_FILE: COMPARISONS, PREDICTIONS_FILE: PREDICTIONS}
    for name, schema in {**empty, CHOICES_FILE: CHOICES, FAILURES_FILE: FAILURES}.items():
        out.table(name, schema.empty_table())
    return out.artifact(rows=0, measured={"summary": [], "skipped": "transfer.strategies is empty"})


def _write(
    config: TransferConfig,
    out: Output,
    labelled: Labelled,
    method: str,
    fits: Sequence[Fit],
    failures: Sequence[Failure],
    measured: Mapping[str, Any],
) -> Artifact:
    """All tables, and the summary that the report is made of."""
    from ssl_tasks.transfer import results
    from ssl_tasks.transfer.comparisons import compare
    from ssl_tasks.transfer.summaries import summarize

    metrics, choices = results.metrics_table(fits), results.choices_table(fits)
    comparisons = compare(fits, method, labelled, config.bootstrap, config.seed)
    summary = summarize(fits, comparisons, method, config.metric, config.task)
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
            "seeds": len(config.seeds),
            "classes": len(labelled.classes),
            **({} if config.task == CLASSIFICATION else {"task": config.task, "class_names": labelled.classes}),
            "labelled": {"val": len(labelled.val), "test": len(labelled.test)},
            "test_groups": labelled.num_groups,
            "scratch": results.scratch_facts(fits, config.scratch.steps),
            "fit_seconds": results.fit_seconds(fits),
            "capped": results.capped(fits),
            "failed": len(failures),
            **measured,
        },
    )


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


def _here(config: TransferConfig, device: torch.device) -> torch.device:
    """What this process itself computes on."""
    from ssl_tasks.device import pick

    return pick("auto", "transfer.device") if _on_ray(config) else device


def _require(first: str, summary: Sequence[Mapping[str, Any]], failures: Sequence[Failure]) -> None:
    """The verdict speaks of the first strategy: without it there is no result."""
    if not any(line["strategy"] == first for line in summary):
        error = next((one.error for one in failures if one.strategy in (first, strategies_there_are.BASELINE)), "")
        raise StageError(f"transfer: no fit of {first} has all its baselines; the first failure: {error}")


def _versions(config: TransferConfig) -> dict[str, int]:
    listed = strategies_there_are.with_counterparts(config.strategies)
    names = [*listed, strategies_there_are.BASELINE] if listed else []
    return {f"transfer.{name}": strategies_there_are.strategy(name).version for name in names}


STAGE = Stage("transfer", TransferConfig, ("normalize", "split", "pretrain", "embed"), run, version=4, parts=_versions)
OF_ADOPTED = replace(STAGE, inputs=("normalize", "split", "adopt", "embed", "augment"))
"""In the DAG of an existing encoder."""
