"""Commands that only read or clean the store: runs, show, lineage, gc. None of them needs a server."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from flows.console import print_line, print_whole, summarize
from flows.options import Json, StoreUri, Verbose
from flows.output import reporting
from flows.stored import default_store, open_to_read
from flows.summary import duration
from flows.tables import print_table
from ssl_tasks.training.bottleneck import in_words


def runs(store: StoreUri = None, json: Json = False, verbose: Verbose = False) -> None:
    """List the runs of the store, newest first."""
    from ssl_tasks.store.runs import list_runs

    with reporting(json=json, verbose=verbose, empty={"runs": []}) as out:
        opened = open_to_read(store or default_store())
        found = list_runs(opened)
        cells = []
        for record in found:
            counts = [sum(s.status == status for s in record.stages) for status in ("ran", "cached")]
            done = f"{counts[0]} ran, {counts[1]} cached"
            cells.append([record.run_id, record.state, done, duration(record.seconds), record.error or ""])
        if cells:
            print_table(out.console, ["run", "state", "stages", "took", "error"], cells, right=["took"])
        else:
            print_whole(out.console, f"no runs in {opened.uri}")
        out.result({"store": opened.uri, "runs": [record.summary() for record in found]})


def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Run id or its start.")],
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show one run: its stages, metrics, error and report."""
    from ssl_tasks.store.runs import find_run

    with reporting(json=json, verbose=verbose) as out:
        record = find_run(open_to_read(store or default_store()), run_id)
        cells = []
        for s in record.stages:
            rows = "-" if s.rows is None else f"{s.rows:,}"
            cells.append([s.name, s.status, rows, duration(s.seconds), s.fingerprint[:12], s.reason])
        print_table(out.console, ["stage", "status", "rows", "time", "artifact", "why"], cells, right=["rows", "time"])
        summarize(out.console, record)
        for line in in_words(record.metrics.get("pretrain", {}).get("bottleneck")):
            print_whole(out.console, line)
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.started))
        print_line(out.console, f"started {started} on {record.host}")
        if record.error:
            print_whole(out.console, f"error: {record.error}")
        out.result({**record.summary(), "recipe": record.recipe})


def lineage(
    artifact: Annotated[str, typer.Argument(help="Fingerprint or its start, a path in the store, or a run id.")],
    store: StoreUri = None,
    files: Annotated[bool, typer.Option("--files", help="List every raw file.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Follow an artifact through its parents back to the raw files."""
    from flows.lineage import resolve, trace

    with reporting(json=json, verbose=verbose) as out:
        opened, fingerprint = resolve(artifact, store)
        lines, nodes = trace(opened, fingerprint, all_files=files)
        for line in lines:
            print_whole(out.console, line)
        out.result({"artifact": fingerprint, "store": opened.uri, "nodes": nodes})


def gc(
    store: StoreUri = None,
    keep_runs: Annotated[
        int | None, typer.Option("--keep-runs", metavar="N", min=0, help="Forget all but the newest N runs.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove what no kept run refers to; never what somebody is working on."""
    from ssl_tasks.store.collect import collect

    with reporting(json=json, verbose=verbose) as out:
        opened = open_to_read(store or default_store())
        gone = collect(opened, keep_runs=keep_runs, dry_run=dry_run)
        parts: dict[str, list[str]] = {
            "artifacts": gone.artifacts,
            "replaced attempts": gone.attempts,
            "checkpoint folders": gone.partials,
            "dead leases": gone.leases,
            "run records": gone.runs,
        }
        said = ", ".join(f"{len(names)} {what}" for what, names in parts.items() if names) or "nothing"
        verb, end = ("would remove", "to free") if dry_run else ("removed", "freed")
        print_whole(out.console, f"{verb} {said}; {gone.bytes_freed / 1e6:,.1f} MB {end}")
        lists = {what.replace(" ", "_"): names for what, names in parts.items()}
        out.result({"dry_run": dry_run, "bytes_freed": gone.bytes_freed, **lists})
