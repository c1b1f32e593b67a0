"""What the fits chose on val and what else they say of themselves, and the rules of those that have rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.phrases import labels
from ssl_tasks.report.units import percent
from ssl_tasks.transfer import BASELINE, strategy
from ssl_tasks.transfer.tables import CHOICES_FILE, FROM_SCRATCH, MAJORITY, RULES_FILE
from ssl_tasks.transfer.targets import TASKS

CHOSEN = {
    "C": "C",
    "alpha": "alpha",
    "k": "k",
    "leaf_rows": "least rows of a leaf",
    "rounds": "rounds",
    "learning_rate": "learning rate",
}
"""Hyper-parameters, by their name in the table: the smallest and the largest over the seeds are shown."""
SHARES = {
    "trained_share": "of the weights were trained",
    "weights": "of the encoder's weights in the student",
    "agreement": "of the test rows called what the probe calls them",
    "fidelity": "of the test rows called what the probe calls them (fidelity)",
    "train_accuracy": "of the labelled train rows right at the end",
    "converged": "of the fits converged",
}
"""Means over the seeds, in percent."""
COUNTS = {
    "leaves": "rules",
    "train_rows": "train rows",
    "features": "features",
    "ingredients": "networks in the soup",
    "targets": "kinds of targets",
}
LARGEST = {"change_at_start": "largest relative change of a feature before training"}


def section(transfer: Artifact, method: str, encoders: Sequence[str] = ()) -> list[dict[str, str]]:
    """A line for each strategy and label budget of the encoder, and of training from scratch.

    Args:
        encoders: names of those that are combined, in the order by which fits number them.
    """
    sizes = {
        (row["strategy"], row["label_fraction"], row["labels_per_class"]): row["num_labels"]
        for row in transfer.table("metrics.parquet").to_pylist()
    }
    found: dict[tuple[str, float, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in transfer.table(CHOICES_FILE).to_pylist():
        if row["method"] in (method, FROM_SCRATCH):
            key = row["strategy"], row["label_fraction"], row["labels_per_class"]
            found[key][row["name"]].append(row["value"])
    lines = [
        {
            "strategy": _title(key[0]),
            "labels": labels(_line(key, sizes[key])),
            "text": "; ".join([*_said(values), *_of_encoders(values, encoders), *_of_targets(values)]),
        }
        for key, values in found.items()
    ]
    return [line for line in lines if line["text"]]


def rules(transfer: Artifact, method: str) -> list[dict[str, str]]:
    """The rules of each strategy that has some, from the fit of its first seed with most labels."""
    if RULES_FILE not in transfer.names():
        return []
    most: dict[str, dict[str, Any]] = {}
    for row in transfer.table(RULES_FILE).to_pylist():
        before = most.get(row["strategy"])
        if row["method"] == method and (before is None or row["label_fraction"] > before["label_fraction"]):
            most[row["strategy"]] = row
    return [
        {"title": f"Rules of {strategy(name).title}, seed {row['seed']}, most labels", "text": row["text"]}
        for name, row in most.items()
    ]


def costs(fit_seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Each strategy and what its fits took, the longest first.

    Args:
        fit_seconds: as the transfer stage measured them.
    """
    ranked = sorted(fit_seconds.items(), key=lambda item: -item[1])
    return [(_title(name), f"{seconds:,.1f} s") for name, seconds in ranked if name != MAJORITY]


def _line(key: tuple[str, float, int], num_labels: int) -> dict[str, Any]:
    return {"label_fraction": key[1], "labels_per_class": key[2], "num_labels": num_labels}


def _title(name: str) -> str:
    return "training from scratch" if name == BASELINE else strategy(name).title.removeprefix("a ")


def _said(values: dict[str, list[float]]) -> list[str]:
    said = [f"{title} {_range(values[name])}" for name, title in CHOSEN.items() if name in values]
    said += [f"{_share(values[name])} {title}" for name, title in SHARES.items() if name in values]
    said += [f"{_range(values[name])} {title}" for name, title in COUNTS.items() if name in values]
    return said + [f"{title} {max(values[name]):.0e}" for name, title in LARGEST.items() if name in values]


def _of_encoders(values: Mapping[str, list[float]], encoders: Sequence[str]) -> list[str]:
    """What each encoder counts for, where several are combined."""
    said = []
    for place, name in enumerate(encoders):
        if f"weight {place}" in values:
            said.append(f"{_share(values[f'weight {place}'])} of the weight on {name}")
        if f"from {place}" in values:
            said.append(f"{_range(values[f'from {place}'])} from {name}")
        if "encoder" in values:
            said.append(f"{name} in {_share([float(best == place) for best in values['encoder']])} of the fits")
    return said


def _of_targets(values: Mapping[str, list[float]]) -> list[str]:
    """What each kind of target counts for at the end, where several are learnt."""
    weights = {name: values[f"weight {name}"] for name in TASKS if f"weight {name}" in values}
    return [f"{name.replace('_', ' ')} counts for {sum(each) / len(each):.2g}" for name, each in weights.items()]


def _range(values: list[float]) -> str:
    low, high = (f"{value:,g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _share(values: list[float]) -> str:
    return percent(sum(values) / len(values))
