"""The command that evaluates an encoder that is there already."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.options import Json, Overrides, StoreUri, Verbose
from flows.output import reporting
from flows.session import EMPTY, execute


def transfer(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="A run or a pretrain artifact, timm:MODEL@FILE, torchvision:MODEL@FILE, or a Hugging Face folder.",
        ),
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled data: a recipe that says what it is, or its path.")
    ],
    overrides: Overrides = None,
    store: StoreUri = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what an existing encoder is worth on labelled data, normalized as the encoder was trained."""
    from flows.existing import transfer_recipe

    with reporting(json=json, verbose=verbose, empty=EMPTY) as out:
        execute(out, lambda: transfer_recipe(encoder, data, overrides or (), store=store))
