"""The page and the terminal's tables of two runs' difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssl_tasks.report import charts, page
from ssl_tasks.report.difference import SIDES, Side
from ssl_tasks.report.judging import JUDGEMENTS, judge
from ssl_tasks.report.phrases import labels
from ssl_tasks.report.sections import size
from ssl_tasks.report.units import METRIC_TITLES, percent, signed, spread, written
from ssl_tasks.schema import HEALTH_FILE, METRICS_FILE
from ssl_tasks.transfer import strategy

FORMATS: dict[str, Callable[[Any], str]] = {
    "rankme": "{:.1f}".format,
    "rows_per_second": "{:,.0f}".format,
    "peak_memory_bytes": size,
    "knn": percent,
}
NAMES = {
    "loss": "Loss at the end",
    "rankme": "RankMe",
    "feature_std": "Feature deviation",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
    "knn": "kNN probe on val rows",
    "rows_per_second": "Rows/s",
    "peak_memory_bytes": "Peak memory",
}


def render(found: Mapping[str, Any], old: Side, new: Side) -> str:
    """The page as text; everything that a user or the data named is escaped.

    Args:
        found: as `flows.difference.compare_runs` gives it.
    """
    transfer = found["transfer"]
    return page.render(
        "difference.html.j2",
        title=f"{old.run_id} and {new.run_id}",
        found=found,
        outcome=outcome(transfer),
        metric=METRIC_TITLES.get(transfer["metric"], ""),
        transfer=[transfer_row(line) for line in transfer["lines"]],
        recipe=[{**line, **{key: shown(line[key]) for key in SIDES}} for line in found["recipe"]],
        stages=[_stage(line) for line in found["stages"]],
        data=[data_row(line) for line in found["data"]["lines"]],
        training=[_measure(line) for line in found["training"]],
        pairs=[_pair(*pair) for pair in (transfer["changes"] or {}).get("pairs", [])],
        **_curves(old, new),
    )


def outcome(transfer: Mapping[str, Any]) -> str:
    """Class of the headline in the style sheet."""
    first = next((line["difference"] for line in transfer["lines"] if line["difference"]), None)
    return {"better": "helped", "worse": "worse"}.get(judge(first, "") if first else "", "")


def transfer_row(line: Mapping[str, Any]) -> dict[str, str]:
    """One line of the transfer table, numbers written out; a dash for what is not there."""
    difference = line["difference"]
    present = line["new"] or line["old"]
    cells = {"strategy": strategy(line["strategy"]).title.removeprefix("a "), "labels": labels(present)}
    for key in SIDES:
        own = line[key]
        value = difference[key] if difference else own and own["pretrained"]
        cells[key] = "-" if value is None else written(present.get("metric", "accuracy"), value)
        cells[f"{key}_gain"] = "-" if own is None else _interval(own)
    cells["difference"] = _interval(difference) if difference else "not compared"
    cells["judgement"] = JUDGEMENTS[judge(difference, "")] if difference else ""
    return cells


def _interval(line: Mapping[str, Any]) -> str:
    values = (line[key] for key in ("difference", "low", "high"))
    difference, low, high = spread(line.get("metric", "accuracy"), *values)
    return f"{difference} ({low} to {high})"


def shown(value: Any) -> str:
    """A value of a recipe as one would write it there."""
    if value is None:
        return "unset"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _stage(line: Mapping[str, Any]) -> dict[str, str]:
    cells = {"name": line["name"], "why": line["why"] or "one artifact, used by both"}
    for key in SIDES:
        stage = line[key]
        took = "" if stage is None or stage["seconds"] is None else f", {stage['seconds']:,.1f} s"
        cells[key] = "-" if stage is None else f"{stage['status']}{took}"
    return {**cells, "css": "" if line["same"] else "changed"}


def data_row(line: Mapping[str, Any]) -> dict[str, str]:
    """One line of the table of the data, numbers written out."""
    old, new = (line[key] for key in SIDES)
    known = old is not None and new is not None
    change = "" if not known or old == new else f"{new - old:+,}".replace("-", "\N{MINUS SIGN}")
    return {
        "what": line["what"],
        **{key: "-" if line[key] is None else f"{line[key]:,}" for key in SIDES},
        "change": change,
    }


def _measure(line: Mapping[str, Any]) -> dict[str, str]:
    write = FORMATS.get(line["measure"], "{:.3g}".format)
    values = {key: "-" if line[key] is None else write(line[key]) for key in SIDES}
    return {"measure": NAMES[line["measure"]], **values}


def _pair(truth: str, called: str, old: float, new: float) -> dict[str, str]:
    right = truth == called
    better = (new > old) == right
    return {
        "what": f"{truth} right" if right else f"{truth} called {called}",
        "old": percent(old),
        "new": percent(new),
        "change": signed(new - old),
        "css": "better" if better else "worse",
    }


def _curves(old: Side, new: Side) -> dict[str, Any]:
    """Training of both runs in one chart each; without losses where these have no common scale."""
    if not ("pretrain" in old.artifacts and "pretrain" in new.artifacts):
        return {"curves": [], "health": [], "loss_note": ""}
    before, after = (side.artifacts["pretrain"] for side in (old, new))
    if before.fingerprint == after.fingerprint:
        return {"curves": [], "health": [], "loss_note": "Both runs have the same pretraining."}
    first, second = (int(side.recipe["pretrain"]["batch_size"]) for side in (old, new))
    tables = [artifact.table(METRICS_FILE) for artifact in (before, after)]
    health = [artifact.table(HEALTH_FILE) for artifact in (before, after)]
    other = old.method != new.method
    skip = [name for name in tables[1].column_names if name != "lr"] if other else []
    return {
        "curves": charts.overlaid(tables[0], tables[1], (first, second), skip),
        "health": charts.overlaid(health[0], health[1], (first, second)),
        "loss_note": _loss_note(old, new, other),
    }


def _loss_note(old: Side, new: Side, other: bool) -> str:
    if other:
        both = f"{old.method} and {new.method}"
        return f"Losses and gradients of {both} have no common scale and are not drawn over each other."
    options = list(_differing(old, new))
    if options:
        return f"The methods differ in {', '.join(options)}, so their losses need not have one scale."
    return ""


def _differing(old: Side, new: Side) -> Iterator[str]:
    before, after = (side.recipe["pretrain"]["method"] for side in (old, new))
    return (key for key in dict.fromkeys([*after, *before]) if before.get(key) != after.get(key))
