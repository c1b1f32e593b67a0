"""The command that sets two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import print_line, print_whole
from flows.options import Json, StoreUri, Verbose
from flows.output import Out, reporting
from flows.stored import default_store, open_to_read
from flows.summary import duration
from flows.tables import print_table
from ssl_tasks.errors import RequestError

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Run id or its start.")]


TRANSFER = ("strategy", "labels", "old", "new")


def diff(
    old: RunId,
    new: RunId,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")] = Path("difference.html"),
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what differs between two runs, and whether the second encoder is better than the first."""
    from ssl_tasks.store.runs import find_run

    with reporting(json=json, verbose=verbose) as out:
        if not output.parent.is_dir():
            raise RequestError(f"--output: there is no folder {output.parent}")
        opened = open_to_read(store or default_store())
        records = [find_run(opened, text) for text in (old, new)]
        if records[0].run_id == records[1].run_id:
            raise RequestError(f"diff: {old} and {new} are one run, {records[0].run_id}")

        from flows.difference import compare_runs, side
        from ssl_tasks.report import difference_page

        found = compare_runs(opened, *records)
        page = difference_page.render(found, *(side(opened, record) for record in records))
        output.write_text(page, encoding="utf-8")
        _tell(out, found)
        print_whole(out.console, f"page: {output.resolve()}")
        out.result({**found, "page": str(output.resolve())})


def _tell(out: Out, found: dict[str, Any]) -> None:
    from ssl_tasks.report.difference_page import data_row, shown, transfer_row

    for name in ("old", "new"):
        print_whole(out.console, f"{name}: {found[name]['run_id']}")
    rows = [[line["key"], shown(line["old"]), shown(line["new"])] for line in found["recipe"]]
    if rows:
        _table(out, ["recipe key", "old", "new"], rows)
    stages = [[line["name"], *_took(line), line["why"] or "shared"] for line in found["stages"]]
    _table(out, ["stage", "old", "new", "why"], stages)
    changed = [data_row(line) for line in found["data"]["lines"] if line["old"] != line["new"]]
    if changed:
        cells = [[line["what"], line["old"], line["new"], line["change"]] for line in changed]
        _table(out, ["data", "old", "new", "change"], cells, right=["old", "new", "change"])
    elif found["data"]["same"]:
        print_line(out.console, "data: the same rows in the same splits")
    lines = [transfer_row(line) for line in found["transfer"]["lines"]]
    if lines:
        told = [
            [*(line[key] for key in TRANSFER), f"{line['difference']} {line['judgement']}".strip()] for line in lines
        ]
        _table(out, ["transfer", "labels", "old", "new", "new - old [95%]"], told, right=["old", "new"])
    print_whole(out.console, found["transfer"]["headline"])
    for note in found["transfer"]["notes"]:
        if note != found["transfer"]["headline"]:
            print_whole(out.console, note)


def _took(line: dict[str, Any]) -> list[str]:
    return [
        "-" if line[key] is None else f"{line[key]['status']} {duration(line[key]['seconds'])}"
        for key in ("old", "new")
    ]


def _table(out: Out, names: list[str], rows: list[list[str]], right: list[str] | None = None) -> None:
    print_table(out.console, names, rows, right=right or [])
    print_line(out.console, "")
