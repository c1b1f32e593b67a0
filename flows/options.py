"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a built-in recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a key; may be repeated.")
]
StoreUri = Annotated[
    str | None,
    typer.Option("--store", metavar="URI", help="Folder or URI of the store; goes before PRETEXTFLOW_STORE."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show everything: Prefect's log, tracebacks.")]
