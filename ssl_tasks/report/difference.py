"""What two runs found, side by side, and what their difference is worth; as plain JSON values.

    found = transfer(old, new)
    found["headline"], found["lines"][0]["difference"]

Encoders are compared on test rows that both runs have and neither has trained on. Where there are too few of these,
each run's own figures stand beside each other, without a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.report import paired
from ssl_tasks.report.judging import FEW_GROUPS, FEW_SEEDS, few_seeds, judge
from ssl_tasks.report.phrases import gain, labels
from ssl_tasks.report.units import METRIC_TITLES, percent
from ssl_tasks.schema import LABEL, QUARANTINE_FILE, SAMPLE_ID, SPLIT, SPLITS, SPLITS_FILE
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.targets import CLASSIFICATION

MEASURES = ("loss", "rankme", "feature_std", "alignment", "uniformity", "knn", "rows_per_second", "peak_memory_bytes")
"""What pretraining measures without labels."""
CHANGED_PAIRS = 10


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    run_id: str
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    """What the stages measured, by stage."""
    artifacts: Mapping[str, Artifact]
    """By stage, as far as they are in the store."""

    @property
    def method(self) -> str:
        """Of the pretraining."""
        return str(self.recipe.get("pretrain", {}).get("method", {}).get("name", ""))

    def fingerprint(self, stage: str) -> str | None:
        """Of the stage's artifact; None where it is gone."""
        return self.artifacts[stage].fingerprint if stage in self.artifacts else None


def shared(old: Side, new: Side, stage: str) -> bool:
    """Whether both runs have the very same artifact of a stage."""
    return old.fingerprint(stage) is not None and old.fingerprint(stage) == new.fingerprint(stage)


def data(old: Side, new: Side) -> dict[str, Any]:
    """Rows, what was set aside and why, splits; and how many samples the runs have in common.

    Returns:
        `same`: whether both use the same rows in the same splits. `lines`: what, old, new; None where it is not known.
        `samples`: counts of samples in both runs, in one only, in another split, under another label; None where
        `same`, or where an artifact is gone.
    """
    counts = [dict(_counts(side)) for side in (old, new)]
    names = list(dict.fromkeys([*counts[0], *counts[1]]))
    same = shared(old, new, "split")
    known = "split" in old.artifacts and "split" in new.artifacts
    return {
        "same": same,
        "lines": [{"what": name, **{k: of.get(name) for k, of in zip(SIDES, counts, strict=True)}} for name in names],
        "samples": _samples(old.artifacts["split"], new.artifacts["split"]) if known and not same else None,
    }


SIDES = ("old", "new")


def _counts(side: Side) -> Iterator[tuple[str, int]]:
    if "ingest" in side.artifacts:
        yield "rows read", side.artifacts["ingest"].rows
    for (severity, reason), count in sorted(_set_aside(side).items(), reverse=True):
        yield f"{severity}: {reason.replace('_', ' ')}", count
    split, clean = side.metrics.get("split", {}), side.metrics.get("clean", {})
    for name in SPLITS:
        if name in split.get("splits", {}):
            yield f"{name} rows", split["splits"][name]
    for name in SPLITS:
        if name in split.get("labelled", {}):
            yield f"{name} rows with a label", split["labelled"][name]
    if "classes" in split:
        yield "classes", len(split["classes"])
    for key in ("groups", "duplicates"):
        if key in clean:
            yield key, clean[key]


def _set_aside(side: Side) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for name in ("clean", "assign"):
        if name in side.artifacts:
            for batch in side.artifacts[name].batches(QUARANTINE_FILE, ["severity", "reason"]):
                counts.update(zip(batch["severity"].to_pylist(), batch["reason"].to_pylist(), strict=True))
    return counts


def _samples(old: Artifact, new: Artifact) -> dict[str, int]:
    before, after = (split.table(SPLITS_FILE, [SAMPLE_ID, SPLIT, LABEL]) for split in (old, new))
    places = pc.index_in(after[SAMPLE_ID], before[SAMPLE_ID].combine_chunks())
    both = pc.is_valid(places)
    after_both, before_both = after.filter(both), before.take(places.filter(both))
    labels = [table[LABEL].fill_null("") for table in (before_both, after_both)]
    return {
        "both": after_both.num_rows,
        "old_only": before.num_rows - after_both.num_rows,
        "new_only": after.num_rows - after_both.num_rows,
        "other_split": _unequal(before_both[SPLIT], after_both[SPLIT]),
        "other_label": _unequal(*labels),
    }


def _unequal(first: pa.ChunkedArray, second: pa.ChunkedArray) -> int:
    return pc.sum(pc.not_equal(first, second)).as_py() or 0


def training(old: Side, new: Side) -> list[dict[str, Any]]:
    """`measure`, `old`, `new`: what pretraining measured without labels; None where it was not."""
    sides = [side.metrics.get("pretrain", {}) for side in (old, new)]
    return [
        {"measure": name, **{key: values.get(name) for key, values in zip(SIDES, sides, strict=True)}}
        for name in MEASURES
        if any(values.get(name) is not None for values in sides)
    ]


def transfer(old: Side, new: Side) -> dict[str, Any]:
    """The transfer tables side by side; differences with 95% intervals where the same rows were tested.

    Returns:
        `lines`: for each strategy and label fraction of either run `old` and `new` (each a line of that run's
        summary, None where it has none) and `difference` (a `paired.PairedLine` on the rows in common, or None).
        `rows`: how many test rows there are and how many are common. `changes`: see `paired.changes`, at the
        headline's budget. `notes`: what limits the comparison.
    """
    before, after = (side.metrics.get("transfer", {}).get("summary") or [] for side in (old, new))
    found: dict[str, Any] = {"rows": None, "changes": None, "metric": _metric(new) or _metric(old)}
    matched, reason = _matched(old, new, bool(before and after))
    if matched:
        found["rows"] = {
            "old": matched.num_old,
            "new": matched.num_new,
            "common": len(matched.labels),
            "groups": matched.num_groups,
            "relabelled": matched.relabelled,
        }
    if matched is None or reason:
        found |= {"lines": _lines(before, after, {}), "notes": [reason]}
    else:
        fits = [
            paired.load(side.artifacts["transfer"], rows)
            for side, rows in ((old, matched.old_rows), (new, matched.new_rows))
        ]
        config = new.recipe["transfer"]
        options = {"metric": found["metric"], "resamples": config["bootstrap"], "seed": config["seed"]}
        compared = paired.compare(matched, fits[0], fits[1], **options)
        found["lines"] = _lines(before, after, {(line.strategy, line.label_fraction): line for line in compared})
        found["notes"] = list(_limits(old, new, matched, found["lines"]))
        if first := _first(found["lines"]):
            at = (first["strategy"], first["label_fraction"])
            found["changes"] = paired.changes(matched, fits[0][at], fits[1][at], CHANGED_PAIRS)
    found["headline"] = _headline(old, new, found)
    return found


def _metric(side: Side) -> str:
    return str(side.metrics.get("transfer", {}).get("metric") or "")


def _matched(old: Side, new: Side, both: bool) -> tuple[paired.Matched | None, str | None]:
    """The test rows in common, and why encoders are not compared on them, where they are not."""
    if not both:
        return None, "There is no transfer in both runs, so nothing is said of what the encoders are worth."
    if {side.metrics["transfer"].get("task", CLASSIFICATION) for side in (old, new)} != {CLASSIFICATION}:
        return None, (
            "Encoders of two runs are compared row by row for transfer.task=classification only; each run's own "
            "figures stand beside each other."
        )
    gone = [side.run_id for side in (old, new) if not {"split", "transfer"} <= side.artifacts.keys()]
    if gone:
        return None, f"Predictions of {' and '.join(gone)} are no longer in the store, so there are no differences."
    matched = paired.match(old.artifacts["split"], new.artifacts["split"])
    if matched.num_groups < FEW_GROUPS:
        return matched, (
            f"The runs were tested on different rows ({len(matched.labels):,} in common, in {matched.num_groups:,} "
            f"groups; at least {FEW_GROUPS} groups are needed), so a difference would not be one of the encoders."
        )
    return matched, None


def _lines(
    old: list[dict[str, Any]], new: list[dict[str, Any]], differences: Mapping[paired.Budget, paired.PairedLine]
) -> list[dict[str, Any]]:
    before, after = ({(line["strategy"], line["label_fraction"]): line for line in side} for side in (old, new))
    order = list(dict.fromkeys([*after, *before]))
    return [
        {
            "strategy": key[0],
            "label_fraction": key[1],
            "old": before.get(key),
            "new": after.get(key),
            "difference": differences[key].to_dict() if key in differences else None,
        }
        for key in sorted(order, key=lambda key: (list(dict.fromkeys(name for name, _ in order)).index(key[0]), key[1]))
    ]


def _limits(old: Side, new: Side, matched: paired.Matched, lines: list[dict[str, Any]]) -> Iterator[str]:
    """What a reader of the differences must know."""
    if not matched.same:
        yield (
            f"The runs were tested on different rows. Values and differences are on the {len(matched.labels):,} that "
            f"both have (of {matched.num_old:,} and {matched.num_new:,}); each run's gain over its untrained network "
            "is on all of its own."
        )
    if matched.relabelled:
        yield f"{matched.relabelled:,} test rows have another label in the new run and are left out."
    if not shared(old, new, "split"):
        yield "The train rows differ, so a difference is one of data and encoder together."
    if any(line["old"] and line["new"] and line["old"]["num_labels"] != line["new"]["num_labels"] for line in lines):
        yield "A share of the labels is another number of labelled rows in each run."
    if _metric(old) != _metric(new):
        yield (
            f"The old run's recipe asks for {METRIC_TITLES[_metric(old)]}; its values here are "
            f"{METRIC_TITLES[_metric(new)]} too."
        )


def _first(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """First strategy, smallest budget, as in every ranking: nothing is picked afterwards."""
    return next((line for line in lines if line["difference"]), None)


def _headline(old: Side, new: Side, found: Mapping[str, Any]) -> str:
    if shared(old, new, "transfer"):
        return "Both runs have the same encoder and the same transfer."
    line = _first(found["lines"])
    if line is None:
        return found["notes"][0] if found["notes"] else "The runs have no strategy and label budget in common."
    difference, is_same = line["difference"], shared(old, new, "pretrain") or shared(old, new, "adopt")
    few = f"Too few seeds in common ({difference['num_seeds']}; at least {FEW_SEEDS} are needed, transfer.seeds)"
    verdict = {
        "better": "The new run is better",
        "worse": "The new run is worse",
        "open": f"{few} to tell the runs apart" if few_seeds(difference) else "The test cannot tell the runs apart",
    }[judge(difference, "")]
    return (
        f"{'Both runs have the same encoder. ' if is_same else ''}{verdict}: with {labels(line['new'])}, "
        f"{strategy(line['strategy']).title} reached {percent(difference['new'])} {METRIC_TITLES[found['metric']]}, "
        f"{gain(difference, '')} than the {percent(difference['old'])} of the old one."
    )
