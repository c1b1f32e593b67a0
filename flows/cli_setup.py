"""Commands around a run: methods, doctor, deploy, serve."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from flows import server as prefect_server
from flows.console import print_whole
from flows.options import Json, Overrides, RecipeName, StoreUri, Verbose
from flows.output import reporting
from flows.quiet import imports, quiet
from flows.recipe import load_recipe
from flows.stored import default_store
from flows.tables import print_table
from ssl_tasks.errors import RequestError

Cron = Annotated[str, typer.Option("--cron", metavar="LINE", help="When it runs: minute hour day month weekday.")]
Timezone = Annotated[str, typer.Option("--timezone", metavar="NAME", help="Of the cron line, as in Europe/Berlin.")]


def methods(json: Json = False, verbose: Verbose = False) -> None:
    """List the pretext methods by family, with their modalities and papers."""
    from ssl_tasks.methods import names, spec, version

    with reporting(json=json, verbose=verbose, empty={"methods": []}) as out:
        with imports():
            specs = sorted((spec(name) for name in names()), key=lambda found: (found.family, found.name))
        print_table(
            out.console,
            ["family", "method", "modalities", "needs", "version", "paper"],
            [
                [
                    *(found.family, found.name, ", ".join(found.modalities), ", ".join(found.needs)),
                    *(str(version(found.name)), found.paper),
                ]
                for found in specs
            ],
        )
        out.result(
            {
                "methods": [
                    {
                        "name": found.name,
                        "family": found.family,
                        "modalities": list(found.modalities),
                        "needs": list(found.needs),
                        "version": version(found.name),
                        "paper": found.paper,
                        "config": {
                            key: info.get_default(call_default_factory=True)
                            for key, info in found.config.model_fields.items()
                            if not info.is_required()
                        },
                    }
                    for found in specs
                ]
            }
        )


def doctor(
    store: StoreUri = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Start Ray as well and run one task, or ask every node of RAY_ADDRESS.")
    ] = False,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="As --ray, for the cluster there.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="RECIPE", help="Whose training the cluster is to hold.")
    ] = None,
    overrides: Overrides = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check the installation, Prefect, the store and Ray, and say what mends what is wrong."""
    from flows.doctor import examine, worst

    with reporting(json=json, verbose=verbose, empty={"checks": []}) as out:
        given: Any = load_recipe(recipe or "digits", overrides or (), store=store) if recipe or overrides else None
        address = address or (given and given.ray_address)
        config, store = (getattr(given, "pretrain", None), given.store) if given else (None, store or default_store())
        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        findings = []
        for finding in examine(store, ray=ray or bool(address), address=address, config=config):
            findings.append(finding)
            line = Text(f"{finding.level:<5}", style=colours[finding.level])
            line.append(f"{finding.check}: {finding.found}", style="default")
            out.console.print(line, soft_wrap=True)
            if finding.mend:
                print_whole(out.console, f"      mend: {finding.mend}")
        out.status = worst(findings)
        out.result({"ok": out.status == 0, "checks": [finding.to_dict() for finding in findings]})


def deploy(
    recipe: RecipeName,
    cron: Cron,
    timezone: Timezone = "UTC",
    pool: Annotated[str, typer.Option("--pool", metavar="NAME", help="Work pool; made where missing.")] = "pretextflow",
    overrides: Overrides = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a scheduled deployment on a Prefect server; a worker executes its runs."""
    with reporting(json=json, verbose=verbose) as out:
        quiet(verbose)
        checked = load_recipe(recipe, overrides or (), store=store)
        if prefect_server.configured_url() is None:
            raise RequestError(
                "deploy: a deployment needs a Prefect server that stays; start one with `prefect server start` and set "
                "PREFECT_API_URL=http://127.0.0.1:4200/api, or use `pretextflow serve`, which brings its own"
            )
        prefect_server.start().wait()
        with imports():
            from flows.deploy import deploy as make_deployment
        done = make_deployment(checked, cron=cron, timezone=timezone, pool=pool)
        made = "made" if done.made_pool else "found"
        print_whole(out.console, f"deployed {done.name} ({cron}, {timezone}) to work pool {done.pool} ({made})")
        print_whole(out.console, f"start a worker where the runs are to happen:\n  {done.worker_command}")
        out.result({"deployment": done.name, "deployment_id": done.deployment_id, "pool": done.pool, "cron": cron})


def serve(
    recipe: RecipeName,
    cron: Cron,
    timezone: Timezone = "UTC",
    overrides: Overrides = None,
    store: StoreUri = None,
    verbose: Verbose = False,
) -> None:
    """Run a recipe on a schedule on this machine, until Ctrl-C; brings a Prefect server where there is none."""
    with reporting(verbose=verbose) as out:
        quiet(verbose=True)  # the log is all that there is to see of a served run
        checked = load_recipe(recipe, overrides or (), store=store)
        with prefect_server.connection(scheduler=True) as server:
            with imports():
                from flows.deploy import serve as serve_runs
            server.wait()
            print_whole(out.console, f"serving {checked.name} ({cron}, {timezone}) on {server.url}; Ctrl-C ends it")
            serve_runs(checked, cron=cron, timezone=timezone)
