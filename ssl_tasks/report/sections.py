"""The report's tables, as plain values for the template."""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml

from ssl_tasks.artifact import Artifact
from ssl_tasks.report.judging import FITTED, JUDGEMENTS, judge, stopped_early, trains_all
from ssl_tasks.report.phrases import labels
from ssl_tasks.report.pictures import data_uri
from ssl_tasks.report.predictions import Int
from ssl_tasks.report.units import METRIC_TITLES, percent, spread, written
from ssl_tasks.schema import GROUP_ID, LABEL, PREVIEW_FILE, QUARANTINE_FILE, SPLIT, SPLITS, SPLITS_FILE
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.tables import FROM_SCRATCH, MAJORITY, PREFIXES, RAW_INPUT, TRAIN_FACTS
from ssl_tasks.transfer.targets import LOCALIZATION, MULTI_LABEL, REGRESSION, SEGMENTATION

WEAK = ", so it is a weak baseline; raise transfer.scratch.steps."
AS_SCRATCH = ("random_init", "random_difference", "random_judgement")
"""Columns that would say of a strategy that trains the whole network what those of training from scratch say."""
EXAMPLES = 3
MAX_CLASSES = 30


def stages(inputs: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """A line for each stage: when its artifact was made, how long that took, and how large it is."""
    lines = []
    for name, artifact in inputs.items():
        manifest = artifact.manifest
        made = datetime.datetime.fromtimestamp(manifest.started, tz=datetime.UTC)
        lines.append(
            {
                "name": name,
                "rows": f"{manifest.rows:,}",
                "bytes": size(manifest.bytes),
                "seconds": f"{manifest.seconds:,.1f} s",
                "made": f"{made:%Y-%m-%d %H:%M} UTC",
                "versions": ", ".join(f"{part} {version}" for part, version in manifest.versions.items()),
                "fingerprint": artifact.fingerprint,
                "parents": ", ".join(manifest.parents) or "the raw files",
                "config": yaml.safe_dump(manifest.config, sort_keys=False, allow_unicode=True).strip()
                if manifest.config
                else "",
            }
        )
    return lines


def size(count: int) -> str:
    """Bytes in a unit that fits."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def transfer_table(summary: Sequence[Mapping[str, Any]], fitted: Mapping[str, float]) -> list[dict[str, Any]]:
    """A line for each strategy and label fraction, numbers written out.

    Args:
        fitted: as `fitted_by` gives it.
    """
    lines = []
    for entry in summary:
        line = dict(entry)
        weak = stopped_early(line, fitted) and "scratch_low" in line and judge(line, "scratch_") == "better"
        lines.append(
            {
                "strategy": strategy(line["strategy"]).title.removeprefix("a "),
                "labels": labels(line),
                "seeds": line["num_seeds"],
                **{name: written(line["metric"], line[name]) for name in ("pretrained", "random_init")},
                **{name: _baseline(line, name) for name in (FROM_SCRATCH, RAW_INPUT, MAJORITY)},
                **{
                    key: text
                    for prefix, name in (("", "random"), ("scratch_", "scratch"))
                    if f"{prefix}low" in line
                    for key, text in (
                        (f"{name}_difference", _difference(line, prefix)),
                        (f"{name}_judgement", JUDGEMENTS[judge(line, prefix)]),
                    )
                },
                **({"scratch_judgement": JUDGEMENTS["open"]} if weak else {}),
                **(dict.fromkeys(AS_SCRATCH, "") if trains_all(line["strategy"]) else {}),
            }
        )
    return lines


def _baseline(line: Mapping[str, Any], name: str) -> str:
    """What a baseline reached, and by how many seeds where it has not all of the line's; empty where there is none."""
    if name not in line:
        return ""
    seeds = line.get(f"{PREFIXES[name]}num_seeds")
    return written(line["metric"], line[name]) + (f" ({seeds} seed{'' if seeds == 1 else 's'})" if seeds else "")


def _difference(line: Mapping[str, Any], prefix: str) -> str:
    values = (line[f"{prefix}{name}"] for name in ("difference", "low", "high"))
    difference, low, high = spread(line["metric"], *values)
    return f"{difference} ({low} to {high})"


OF_PLACES = {
    "train_pixel_accuracy": "the pixels of its labelled rows",
    "train_iou_over_half": "its labelled rows' boxes (an IoU over 0.5)",
}
"""What says how far training from scratch got, for tasks that say where things are; see `verdict.PLACES`."""


def scratch_note(scratch: Mapping[str, Any]) -> str:
    """How far the from-scratch baseline got, and whether that makes it a weak one."""
    if not scratch:
        return ""
    steps, fitted = f"From scratch took {scratch['steps']:,} steps a fit", min(fitted_by(scratch).values())
    for name, what in OF_PLACES.items():
        if name in scratch:
            note = f"{steps} on plain images, and got at least {percent(fitted)} of {what} right"
            return f"{note}: it may not have converged{WEAK}" if fitted < FITTED else f"{note}."
    note = f"{steps} and got at least {percent(fitted)} of its labelled rows"
    if "train_r2" in scratch:
        note = f"{steps} and reached an R2 of at least {fitted:.3f} on its own labelled rows"
        return f"{note}: it had not converged{WEAK}" if fitted < FITTED else f"{note}."
    if fitted < FITTED:
        return f"{note} right: it had not converged{WEAK}"
    return f"{note} right."


MAJORITY_SAYS = {
    MULTI_LABEL: "how frequent each class is",
    REGRESSION: "the mean of the labelled numbers",
    SEGMENTATION: "the most frequent class everywhere",
    LOCALIZATION: "the mean of the boxes",
}
"""What the baseline `majority` always says, in other tasks than classification."""


def majority_says(task: str) -> str:
    """What the baseline `majority` always says."""
    return MAJORITY_SAYS.get(task, "the most frequent class")


def fitted_by(scratch: Mapping[str, Any]) -> dict[str, float]:
    """By label fraction, how well the from-scratch baseline fits its own labelled rows; 1 is entirely."""
    return next((scratch[name] for name in TRAIN_FACTS if name in scratch), {})


def quarantine(inputs: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """A line for each reason, with examples and their thumbnails."""
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for name in ("clean", "assign"):
        for batch in inputs[name].batches(QUARANTINE_FILE, rows=1024):
            for row in batch.to_pylist():
                key = (row["severity"], row["stage"], row["reason"])
                counts[key] += 1
                if len(examples[key]) < EXAMPLES:
                    examples[key].append({**row, "thumbnail": row["thumbnail"] and data_uri(row["thumbnail"])})
    return [
        {
            "severity": severity,
            "stage": stage,
            "reason": reason.replace("_", " "),
            "count": f"{count:,}",
            "examples": examples[severity, stage, reason],
        }
        for (severity, stage, reason), count in counts.most_common()
    ]


def splits(split: Artifact) -> dict[str, Any]:
    """Rows, groups and labelled rows of each split, and rows of each class."""
    groups: dict[str, list[Int]] = {name: [] for name in SPLITS}
    counts: Counter[tuple[str, str]] = Counter()
    for batch in split.batches(SPLITS_FILE, [GROUP_ID, SPLIT, LABEL]):
        for name, found in groups.items():  # as 64 bits each: a set of the names takes 100 bytes a row
            ids = batch[GROUP_ID].filter(pc.equal(batch[SPLIT], name)).to_pylist()
            found.append(np.fromiter(map(hash, ids), np.int64, len(ids)))
        known = batch.filter(batch[LABEL].is_valid())
        counts.update(zip(known[LABEL].to_pylist(), known[SPLIT].to_pylist(), strict=True))
    labelled, totals = Counter[str](), Counter[str]()
    for (label, name), count in counts.items():
        labelled[name] += count
        totals[label] += count
    sizes = []
    for name in SPLITS:
        of_rows = np.concatenate(groups.pop(name))
        facts = {"rows": len(of_rows), "groups": len(np.unique(of_rows)), "labelled": labelled[name]}
        sizes.append({"name": name, **{what: f"{count:,}" for what, count in facts.items()}})
    shown = sorted(totals) if len(totals) <= MAX_CLASSES else [name for name, _ in totals.most_common(MAX_CLASSES)]
    classes = [{"name": name, **{of: f"{counts[name, of]:,}" for of in SPLITS}} for name in shown]
    return {"sizes": sizes, "classes": classes, "more_classes": len(totals) - len(shown)}


def quality_facts(inputs: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """What clean and split measured, in words."""
    clean, split = inputs["clean"].measured, inputs["split"].measured
    known = (
        (clean, "groups", "Groups of rows that must stay together"),
        (clean, "largest_group", "Rows in the largest group"),
        (clean, "duplicates", "Rows that duplicate an earlier row"),
        (clean, "equal", "Of these, rows that are equal to it"),
        (clean, "near_pairs", "Pairs that are nearly equal"),
        (clean, "conflicting_labels", "Sets of duplicates with contradictory labels"),
        (clean, "flagged", "Rows that are used and worth a look"),
        (split, "leaked_test_rows", "Test rows with a group mate in train"),
        (split, "leaked_as_given", "The same, in the splits as the data names them"),
        (split, "naive_leaked_test_rows", "The same, had rows been split without looking at groups (mean of draws)"),
    )
    return [(text, f"{measured[key]:,}") for measured, key, text in known if key in measured]


def preview(augment: Artifact) -> str | None:
    """The augmentation preview as a data URI, where the modality has one."""
    if PREVIEW_FILE not in augment.names():
        return None
    return data_uri(augment.path(PREVIEW_FILE).read_bytes(), "png")


def libraries(inputs: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """Versions that the artifacts were made with; several where they differ."""
    found: dict[str, dict[str, None]] = {}
    for artifact in inputs.values():
        for name, version in artifact.manifest.libraries.items():
            found.setdefault(name, {})[version] = None
    return [(name, ", ".join(versions)) for name, versions in found.items()]


def metric_title(metric: str) -> str:
    """A metric's name as it is written in the report."""
    return METRIC_TITLES.get(metric, metric)
