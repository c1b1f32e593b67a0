"""The command line: `pretextflow --help`, or `python -m flows.cli --help`.

What takes longest is the embedded Prefect server, so it is started before anything else is imported.
"""

from __future__ import annotations

import os
import sys

from flows import bytecode, server
from flows.interrupt import INTERRUPTED, PARENT, die_with, leave
from flows.quiet import quiet


def main() -> None:
    """Entry point of the console script."""
    try:
        _main()
    except KeyboardInterrupt:  # while modules are imported; a command tells its own
        leave(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            leave(INTERRUPTED)
        raise


def _main() -> None:
    if os.environ.get(PARENT):
        die_with(int(os.environ.pop(PARENT)))
    bytecode.ensure()
    if sys.argv[1:2] in (["run"], ["rerun"], ["transfer"]) and not {"-h", "--help"} & set(sys.argv):
        quiet(verbose="--verbose" in sys.argv)
        server.start_early()
    from flows.commands import app

    app(prog_name="pretextflow")


if __name__ == "__main__":
    main()
