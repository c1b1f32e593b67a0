"""What the page says where labels and test rows are of different domains; `advice` says what adapting gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.report.judging import JUDGEMENTS, Line, judge
from ssl_tasks.report.phrases import labels
from ssl_tasks.report.units import percent
from ssl_tasks.transfer import strategy

MEASURES = {"mmd": 3, "a_distance": 2}
"""With their decimals."""


def sentences(measured: Mapping[str, Any]) -> list[str]:
    """Whose labels and test rows the figures rest on; none without domains.

    Args:
        measured: by the transfer stage.
    """
    lines = measured.get("domains")
    return [_protocol({line["target"]: line["sources"] for line in lines})] if lines else []


def _protocol(targets: Mapping[str, Sequence[str]]) -> str:
    if len(targets) == 1:
        ((target, sources),) = targets.items()
        return f"Labels are of {_listed(sources)} and test rows of {target}, of which no label was used."
    return (
        f"Each of {_listed(list(targets))} was left out once: its test rows were scored by fits that saw labels of the "
        "others alone."
    )


def section(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    """A line for each target, strategy and label budget, numbers written out; empty without domains."""
    adapted = {
        _cell(line): JUDGEMENTS[judge(line, "counterpart_")]
        for line in measured["summary"]
        if "counterpart" in line and strategy(line["strategy"]).adapts
    }
    return [
        {
            "target": line["target"],
            "strategy": _title(line["strategy"]),
            "labels": labels(line),
            "value": percent(line["value"]),
            "source": percent(line["source"]) if "source" in line else "",
            **{name: _course(line, name, digits) for name, digits in MEASURES.items()},
            "adapting": adapted.get(_cell(line), ""),
        }
        for line in measured.get("domains", [])
    ]


def _cell(line: Line) -> tuple[str, int, float]:
    """Strategy and budget; of labels a class the fraction is each target's own."""
    per_class = line["labels_per_class"]
    return line["strategy"], per_class, 0.0 if per_class else line["label_fraction"]


def _title(name: str) -> str:
    titles = {"majority": "the most frequent class"}
    return titles[name] if name in titles else strategy(name).title.removeprefix("a ")


def _course(line: Mapping[str, Any], name: str, digits: int) -> str:
    if f"{name}_before" not in line:
        return ""
    before, after = (line.get(f"{name}_{when}") for when in ("before", "after"))
    return f"{before:z.{digits}f}" if after is None else f"{before:z.{digits}f} to {after:z.{digits}f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
