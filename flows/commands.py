"""The commands; each ends with 0, 1 or 2, and after Ctrl-C with 130."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from flows import cli_compare, cli_diff, cli_quarantine, cli_search, cli_setup, cli_store, cli_transfer
from flows.console import plan_dict, plan_table, print_whole
from flows.options import Json, Overrides, RecipeName, StoreUri, Verbose
from flows.output import reporting
from flows.quiet import imports
from flows.recipe import build_recipe, dag_of, load_recipe
from flows.session import EMPTY, execute
from flows.stored import default_store, open_to_read
from ssl_tasks.errors import RequestError

app = typer.Typer(
    help="Self-supervised pretraining as one flow: from raw data to an encoder with evidence of what it is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def run(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Run a recipe; stages that are in the store already are reused."""
    with reporting(json=json, verbose=verbose, empty=EMPTY) as out:
        execute(out, lambda: load_recipe(recipe, overrides or (), store=store))


@app.command()
def plan(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what would run, what is cached, why, and how long it took the last time."""
    from flows.plan import make_plan
    from flows.preflight import check_request

    with reporting(json=json, verbose=verbose, empty={"stages": []}) as out:
        checked = load_recipe(recipe, overrides or (), store=store)
        entries = make_plan(checked, open_to_read(checked.store))
        with imports():
            check_request(checked, [entry for entry in entries if entry.status != "cached"])
        plan_table(out.console, entries)
        out.result({"name": checked.name, "store": checked.store, "stages": [plan_dict(entry) for entry in entries]})


@app.command()
def rerun(
    run_id: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run id or its start.")] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Make this stage and those after it anew.")
    ] = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Continue a failed or interrupted run under its id; without RUN the newest unfinished one."""
    from flows.plan import stages_from
    from ssl_tasks.store.runs import find_run, newest_unfinished

    with reporting(json=json, verbose=verbose, empty=EMPTY) as out:
        opened = open_to_read(store or default_store())
        record = find_run(opened, run_id) if run_id else newest_unfinished(opened)
        if record.is_alive():
            where = f"process {record.pid} on {record.host}"
            if record.host == socket.gethostname():
                raise RequestError(f"run {record.run_id}: still running ({where})")
            # a container that was replaced never comes back to say so; leases keep two runs off one artifact
            print_whole(out.errors, f"warning: whether {where} still runs cannot be seen from here; continuing")
        forced = stages_from(dag_of(record.recipe), first) if first else ()
        values = {**record.recipe, "store": opened.uri}
        execute(
            out,
            lambda: build_recipe(values, where=f"run {record.run_id}"),
            forced=forced,
            previous=record,
        )


app.command()(cli_transfer.transfer)
app.command()(cli_compare.compare)
app.command()(cli_diff.diff)
app.command()(cli_search.search)
app.command()(cli_store.runs)
app.command()(cli_store.show)
app.command()(cli_store.lineage)
app.command()(cli_quarantine.quarantine)
app.command()(cli_store.gc)
app.command()(cli_setup.methods)
app.command()(cli_setup.doctor)
app.command()(cli_setup.deploy)
app.command()(cli_setup.serve)
