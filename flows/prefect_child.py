"""The embedded Prefect server: a child process that serves on a socket it inherits and dies with its parent.

    python -m flows.prefect_child <socket fd> <parent pid> <lock file>

With PREFECT__SERVER_EPHEMERAL=1 in its environment it runs what a single run needs; without, the scheduler and
the UI as well.
"""

from __future__ import annotations

import fcntl
import gc
import socket
import sys
import threading
import time
from pathlib import Path

from flows.interrupt import die_with


def main() -> None:
    """Serve until the parent is gone or says stop."""
    descriptor, parent, lock_file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    die_with(parent)
    gc.disable()  # 3.7 s of imports instead of 4.5 s
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app()
    gc.enable()
    listener = socket.socket(fileno=descriptor)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=1, ws="websockets-sansio"
    )
    # Two servers that migrate the same new database at once fail on "table already exists": one after the other.
    with open(lock_file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = uvicorn.Server(config)
        threading.Thread(target=_unlock_when_started, args=(server, lock.fileno()), daemon=True).start()
        server.run(sockets=[listener])


def _unlock_when_started(server: object, lock: int) -> None:
    while not getattr(server, "started", False):
        time.sleep(0.02)
    fcntl.flock(lock, fcntl.LOCK_UN)


if __name__ == "__main__":
    main()
