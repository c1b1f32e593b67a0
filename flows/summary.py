"""What a run found, as rows and as Markdown: for the closing table and for Prefect's artifacts."""

from __future__ import annotations

from typing import Any

from flows.stored import default_store
from ssl_tasks.report.judging import trains_all
from ssl_tasks.report.units import amount, change, is_share
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord
from ssl_tasks.transfer import STRATEGIES

METRIC_COLUMNS = ("strategy", "labels", "pretrained", "random init", "from scratch", "gain over random init [95%]")


def metric_rows(record: RunRecord) -> list[dict[str, Any]]:
    """One row for each strategy and label budget; none where there was no transfer."""
    rows: list[dict[str, Any]] = record.metrics.get("transfer", {}).get("summary") or []
    return rows


def metric_cells(row: dict[str, Any]) -> list[str]:
    """The values of `METRIC_COLUMNS`; the gain in percentage points, or of numbers in their unit.

    Of a strategy that trains the whole network the untrained one would be that from scratch: its gain is over that.
    """
    name = row.get("strategy", "")
    if name in STRATEGIES and trains_all(name):  # a record may be of an earlier version
        *first, _, scratch, gained = _cells(row)
        return [*first, "-", scratch, f"{gained} over from scratch"]
    return _cells(row)


def _cells(row: dict[str, Any]) -> list[str]:
    per_class = row.get("labels_per_class")
    cells = [str(row.get("strategy", "")), f"{per_class} a class" if per_class else percent(row.get("label_fraction"))]
    gain, low, high = (row.get(name) for name in ("difference", "low", "high"))
    metric = row.get("metric", "accuracy")
    if not is_share(metric) and gain is not None:
        named = [row.get(name) for name in ("pretrained", "random_init", "from_scratch")]
        cells += ["-" if value is None else amount(value) for value in named]
        shown = [change(metric, value) for value in (gain, low, high) if value is not None]
        return [*cells, shown[0] + (f" [{', '.join(shown[1:])}]" if len(shown) > 1 else "")]
    cells += [percent(row.get(name)) for name in ("pretrained", "random_init", "from_scratch")]
    if gain is None:
        return [*cells, "-"]
    interval = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return [*cells, f"{100 * gain:+.1f}{interval}"]


def verdict(record: RunRecord) -> str | None:
    """The report's sentence, where it has one."""
    text = record.metrics.get("report", {}).get("verdict")
    return text if isinstance(text, str) else None


def set_aside(record: RunRecord) -> str | None:
    """How many samples were rejected or flagged, and the command that lists them."""
    counts = {
        what: sum(record.metrics.get(stage, {}).get(what, 0) for stage in ("clean", "assign"))
        for what in ("rejected", "flagged")
    }
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"set aside: {said} (pretextflow quarantine {record.run_id}{store_option(record)})" if said else None


def store_option(record: RunRecord) -> str:
    """What a command about this run needs besides its id: nothing where the store is the default one."""
    uri = str(record.recipe["store"])
    return "" if uri == Store(default_store()).uri else f" --store {uri}"


def percent(value: Any) -> str:
    """0.1234 as 12.3%, 0.001 as 0.1%; a dash where there is no number."""
    return f"{round(100 * value, 1):g}%" if isinstance(value, int | float) else "-"


def duration(seconds: float | None) -> str:
    """0.42 as `0.4 s`, 75 as `1 min 15 s`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def markdown(record: RunRecord) -> str:
    """The run's stages and results for the Prefect UI."""
    lines = [f"# {record.name}", "", f"Run `{record.run_id}`: {record.state}", ""]
    sentence = verdict(record)
    if sentence:
        lines += [sentence, ""]
    lines += ["| stage | status | rows | time | why |", "| --- | --- | ---: | ---: | --- |"]
    for stage in record.stages:
        rows = "-" if stage.rows is None else f"{stage.rows:,}"
        cells = [stage.name, stage.status, rows, duration(stage.seconds), stage.reason.replace("|", "\\|")]
        lines.append(f"| {' | '.join(cells)} |")
    rows_found = metric_rows(record)
    if rows_found:
        lines += ["", f"| {' | '.join(METRIC_COLUMNS)} |", f"| {' | '.join('---' for _ in METRIC_COLUMNS)} |"]
        lines += [f"| {' | '.join(metric_cells(row))} |" for row in rows_found]
    if record.report:
        lines += ["", f"Report: `{record.report}`"]
    return "\n".join(lines)
