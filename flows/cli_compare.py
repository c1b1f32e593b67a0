"""The command that runs one recipe with several methods and ranks them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import server as prefect_server
from flows.console import print_line, print_whole
from flows.interrupt import GRACE_SECONDS, exit_within
from flows.options import Json, Overrides, RecipeName, StoreUri, Verbose
from flows.output import Out, reporting
from flows.quiet import quiet
from flows.summary import metric_cells
from flows.tables import print_table
from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    from flows.compare import Trial
    from ssl_tasks.report.ranking import Outcome

EMPTY: dict[str, Any] = {"state": "failed", "lines": [], "page": None}


def compare(
    recipe: RecipeName = "digits",
    methods: Annotated[str | None, typer.Option("--methods", metavar="A,B,C", help="Methods, by their names.")] = None,
    candidates: Annotated[
        Path | None,
        typer.Option("--candidates", metavar="FILE", help="YAML: for each name the sections that it changes."),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Pretrainings of each, with seeds one after another.")
    ] = 1,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time; for a cluster that holds several.")] = 1,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")] = Path("comparison.html"),
    overrides: Overrides = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a recipe with several methods and rank them; called again, it goes on where it stopped."""
    from flows.compare import candidates as read_candidates
    from flows.compare import check, trials

    with reporting(json=json, verbose=verbose, empty=EMPTY) as out:
        quiet(verbose)
        if not output.parent.is_dir():
            raise RequestError(f"--output: there is no folder {output.parent}")
        wanted = trials(recipe, read_candidates(methods, candidates), overrides or (), store, seeds)
        check(wanted)
        outcomes = _run(out, wanted, jobs)
        _tell(out, outcomes, recipe=wanted[0].recipe.name, seeds=seeds, output=output)


def _run(out: Out, wanted: list[Trial], jobs: int) -> list[Outcome]:
    from flows.compare import Runner

    done = 0

    def told(trial: Trial, answer: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        summary = answer.get("metrics", {}).get("transfer", {}).get("summary") or []
        found = f", {' '.join(metric_cells(summary[0])[:3])}" if summary else ""
        error = f": {answer['error']}" if answer.get("error") else ""
        print_line(
            out.console,
            f"[{done}/{len(wanted)}] {trial.candidate.name}, seed {trial.seed}: {answer.get('state')}{found}{error}",
            style="bold",
        )

    with contextlib.ExitStack() as at_end, prefect_server.connection() as server:
        server.wait()
        os.environ[prefect_server.URL] = server.url  # the runs find it there
        on_interrupt(out, at_end)
        return Runner(jobs, told).run(wanted)


def on_interrupt(out: Out, at_end: contextlib.ExitStack) -> None:
    """Ctrl-C and SIGTERM stop what goes on, say how to continue, and are never long about it."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        print_whole(out.errors, "continue with the same command: what is done is kept")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        at_end.callback(exit_within(GRACE_SECONDS, lambda: None).cancel)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)


def _tell(out: Out, outcomes: list[Outcome], *, recipe: str, seeds: int, output: Path) -> None:
    from ssl_tasks.report import comparison
    from ssl_tasks.report.ranking import rank

    lines = rank(outcomes)
    output.write_text(comparison.render(lines, recipe=recipe, seeds=seeds), encoding="utf-8")
    names, cells = comparison.table(lines, intervals=False)
    print_table(out.console, names, cells, right=names[2:])
    print_whole(out.console, comparison.headline(lines))
    failed = [line.candidate for line in lines if line.errors]
    if failed:
        print_whole(out.errors, f"without a result in every run: {', '.join(failed)}")
        out.status = 1
    print_whole(out.console, f"page: {output.resolve()}")
    out.result(
        {
            "state": "failed" if failed else "completed",
            "lines": [line.to_dict() for line in lines],
            "page": str(output.resolve()),
        }
    )
