"""The methods there are. Adding one is one file and one line in `METHODS`.

Packages outside this project list theirs under the entry point group `pretextflow.methods`; each entry
point loads a `MethodSpec`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError

if TYPE_CHECKING:
    from ssl_tasks.methods.base import MethodSpec

METHODS = {
    "simclr": "ssl_tasks.methods.simclr",
    "dae": "ssl_tasks.methods.dae",
    "scarf": "ssl_tasks.methods.scarf",
}
"""Name and module; the module's `SPEC` is loaded when somebody asks, because it imports torch."""

ENTRY_POINTS = "pretextflow.methods"


def names() -> list[str]:
    """All method names, ours and those of other packages."""
    return sorted({*METHODS, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))})


@functools.cache
def spec(name: str) -> MethodSpec:
    """The method called `name`.

    Raises:
        RequestError: there is none of that name.
    """
    if name in METHODS:
        loaded: MethodSpec = importlib.import_module(METHODS[name]).SPEC
        return loaded
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        found: MethodSpec = point.load()
        return found
    raise RequestError(f"pretrain.method.name: no method {name!r}; there are {', '.join(names())}")
