"""The environment of a quiet Prefect: no analytics, nothing on the console, logs for its UI only.

Prefect reads its settings when it is imported, so `quiet()` comes before that. What the user has set stays.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}

SILENT = {
    # the console handler alone is shut, so that the lines still reach the Prefect UI
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_LOGGING_RICH_FORMATTING": "false",
}


def quiet(verbose: bool = False) -> None:
    """Set what keeps Prefect quiet, for this process and its children."""
    for key, value in {**ALWAYS, **({} if verbose else SILENT)}.items():
        os.environ.setdefault(key, value)


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Around heavy imports: without the cyclic collector Prefect's take 10 to 20% less time here."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
