"""The command that searches for a method and its options within a budget."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli_compare import on_interrupt
from flows.console import RunConsole, print_line, print_whole
from flows.options import Json, Overrides, RecipeName, StoreUri, Verbose
from flows.output import Out, reporting
from flows.quiet import quiet
from flows.recipe import load_recipe, require_pretraining
from flows.tables import print_table
from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store

if TYPE_CHECKING:
    from flows.compare import Trial
    from flows.search import Course
    from flows.spaces import Draw
    from ssl_tasks.cluster.search import Reached
    from ssl_tasks.report.searched import Row

EMPTY: dict[str, Any] = {"state": "failed", "metric": None, "trials": [], "winner": None, "recipe": None, "page": None}


def search(
    recipe: RecipeName = "digits",
    methods: Annotated[
        str | None, typer.Option("--methods", metavar="A,B,C", help="Methods, each with its built-in space.")
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option("--candidates", metavar="FILE", help="YAML as of compare; values may be {uniform: [0.05, 0.5]}."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Settings to draw, of the candidates in turn.")] = 9,
    budget: Annotated[
        int | None,
        typer.Option("--budget", metavar="STEPS", min=1, help="Most optimizer steps of all trials together."),
    ] = None,
    metric: Annotated[
        Literal["knn", "rankme"],
        typer.Option("--metric", help="kNN among labelled val rows, or RankMe, without labels."),
    ] = "knn",
    rungs: Annotated[int, typer.Option("--rungs", min=1, help="Budgets that trials are judged at.")] = 3,
    reduction: Annotated[int, typer.Option("--reduction", min=2, help="Of so many trials one passes a rung.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the draws; pretrain.seed is the recipe's.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trials at a time.")] = 1,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The best, as a recipe.")] = Path(
        "best.yaml"
    ),
    page: Annotated[Path, typer.Option("--page", metavar="FILE", help="The page.")] = Path("search.html"),
    overrides: Overrides = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Search for a method and its options by successive halving; called again, it goes on where it stopped."""
    from flows.compare import check
    from flows.compare import trials as to_trials
    from flows.ray_address import check_ray, job_server
    from flows.search import courses, rows
    from flows.spaces import draw, spaces

    with reporting(json=json, verbose=verbose, empty=EMPTY) as out, contextlib.ExitStack() as at_end:
        quiet(verbose)
        for option, path in (("--output", output), ("--page", page)):
            if not path.parent.is_dir():
                raise RequestError(f"{option}: there is no folder {path.parent}")
        base: Any = load_recipe(recipe, overrides or (), store=store)
        rate = require_pretraining(base, "search").optimizer.lr
        drawn = draw(spaces(methods, candidates, rate), trials, seed)
        wanted = to_trials(recipe, [each.candidate for each in drawn], overrides or (), store, 1)
        check(wanted)
        if job_server(base):
            raise RequestError(
                "ray_address: search draws its trials with Ray and needs a node of the cluster on this host"
            )
        check_ray(base)
        on_interrupt(out, at_end)
        console = RunConsole(out.console, Store.open(base.store))
        at_end.callback(console.close)
        made = courses(wanted, rungs=rungs, reduction=reduction, metric=metric, listener=console)
        print_line(out.console, _laid_out(made))
        reached = _halve(console, wanted, made, metric, reduction=reduction, jobs=jobs, budget=budget)
        found = rows(drawn, wanted, made, reached)
        _tell(out, found, drawn, wanted, metric=metric, output=output, page=page, rungs=rungs, reduction=reduction)


def _laid_out(made: list[Course]) -> str:
    lengths = {course.steps for course in made}
    steps = " or ".join(" / ".join(map(str, rungs)) for rungs in sorted(lengths))
    return f"{len(made)} trials, judged after {steps} steps"


def _halve(
    console: RunConsole, wanted: list[Trial], made: list[Course], metric: str, *, reduction: int, jobs: int,
    budget: int | None,
) -> list[Reached]:  # fmt: skip
    from flows.ray_address import ray_environment
    from flows.search import train_to
    from ssl_tasks.cluster.room import Demand
    from ssl_tasks.cluster.search import halve
    from ssl_tasks.report.searched import MEASURES, number

    reached: list[Reached] = []
    recipe: Any = wanted[0].recipe

    def began(trial: int) -> None:
        if jobs == 1:  # several lines would write over each other
            console.started(made[trial].planned)

    def told(event: Reached) -> None:
        console.close()
        reached.append(event)
        name, steps = wanted[event.trial].candidate.name, made[event.trial].steps[event.rung]
        found = event.error or f"{MEASURES[metric]} {number(event.value, metric)} after {steps} steps"
        print_line(console.console, f"{name}: {found}{', goes on' if event.goes_on else ''}", style="bold")
        if event.goes_on:
            began(event.trial)

    store = Store.open(recipe.store)
    folder = f"partial/search-{os.getpid()}-{os.urandom(4).hex()}"
    with ray_environment(recipe):
        address = os.environ.get("RAY_ADDRESS")
        demands = [Demand.of(trial.recipe.pretrain, use_gpu=False).total for trial in wanted]  # type: ignore[attr-defined]  # a section
        most = {name: jobs * max(demand.get(name, 0) for demand in demands) for demand in demands for name in demand}
        num_cpus = max(os.cpu_count() or 1, int(most.pop("CPU")))
        try:
            halve(
                functools.partial(train_to, made, metric, address), [course.steps for course in made], told, began,
                store=store.full(folder), storage=store.fs, address=address,
                num_cpus=num_cpus, resources=most, reduction=reduction, jobs=jobs, budget=budget,
            )  # fmt: skip
        finally:
            console.close()
            store.delete(folder)
    return reached


def _tell(
    out: Out, found: list[Row], drawn: list[Draw], wanted: list[Trial], *, metric: str, output: Path, page: Path,
    rungs: int, reduction: int,
) -> None:  # fmt: skip
    from flows.search import winner_yaml
    from ssl_tasks.report import searched

    recipe = wanted[0].recipe.name
    names, cells = searched.table(found, metric)
    print_table(out.console, names, cells, right=names[3:5])
    sentence = searched.headline(found, metric)
    print_whole(out.console, sentence)
    page.write_text(searched.render(found, recipe=recipe, metric=metric, rungs=rungs, reduction=reduction), "utf-8")
    best = searched.winner(found)
    if best:
        chosen = next(
            trial.recipe for draw, trial in zip(drawn, wanted, strict=True) if draw.candidate.name == best.trial
        )
        output.write_text(winner_yaml(chosen, sentence), "utf-8")
        print_whole(out.console, f"continue with: pretextflow run {output}")
    else:
        out.status = 1
    print_whole(out.console, f"page: {page.resolve()}")
    out.result(
        {
            "state": "completed" if best else "failed",
            "metric": metric,
            "trials": [row.to_dict() for row in searched.ranked(found)],
            "winner": best.trial if best else None,
            "recipe": str(output.resolve()) if best else None,
            "page": str(page.resolve()),
        }
    )
