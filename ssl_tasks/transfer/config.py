"""Section `transfer` of a recipe, and what of it goes together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ssl_tasks import transfer as strategies_there_are
from ssl_tasks.config import execution
from ssl_tasks.transfer import kinds
from ssl_tasks.transfer.options import Options
from ssl_tasks.transfer.targets import CLASSIFICATION

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
