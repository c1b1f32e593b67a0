"""The Prefect server a run talks to: the user's, or one of our own that lives as long as the process.

    with connection() as server:      # at the very beginning; the server starts while the recipe is read
        ...
        server.wait()                 # before the flow is called

Prefect's own temporary server outlives a killed parent, prints tracebacks at exit and starts only when the
flow is called. Measured on 2 cores: 5.6 s until it answers (with compiled bytecode; 10.6 s without), of which
4 s are imports; the first start of all takes 12 s more for migrations.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ssl_tasks.errors import RequestError

URL = "PREFECT_API_URL"
MOST_RESTARTS = 5
START_SECONDS = 180.0
"""Deadline for our own server; the first start of all migrates the database, 12 s here."""
ANSWER_SECONDS = 5.0
SCHEDULER_PORT = 4200
"""Where `serve` puts its server and UI if nobody else is there: Prefect's own default."""

SERVER_SETTINGS = {
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",  # two runs at once share one SQLite file
    "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",  # checks inserted into a library at import: 0.5 s
}
RUN_SETTINGS = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}


@dataclass
class Server:
    """A Prefect API. `child` is None where it is the user's own."""

    url: str
    child: subprocess.Popen[bytes] | None = None
    errors: IO[bytes] | None = None
    listener: socket.socket | None = None
    """Open here too: while a dead child is replaced, requests wait in it and are not refused."""
    spawn: Callable[[], subprocess.Popen[bytes]] | None = None
    _stopping: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Return when it answers.

        Raises:
            RequestError: it does not.
        """
        if self.child is None:
            _check_foreign(self.url)
            return
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise RequestError(f"the embedded Prefect server did not start: {self._why()}")
            with contextlib.suppress(OSError):
                # the socket listens from the first moment on; the answer comes when the server is there
                if _get(f"{self.url}/health", timeout=2.0) == 200:
                    threading.Thread(target=self._keep, daemon=True, name="prefect-server").start()
                    return
                time.sleep(0.05)
        raise RequestError(f"the embedded Prefect server did not answer within {START_SECONDS:.0f} s: {self._why()}")

    def _keep(self) -> None:
        """Replace a child that dies before `stop`; its database has all that it answered for."""
        assert self.child is not None
        assert self.spawn is not None
        for _ in range(MOST_RESTARTS):
            self.child.wait()
            with self._lock:
                if self._stopping:
                    return
                self.child = self.spawn()  # in this thread, which stays: Linux ends a child with its thread
        self.child.wait()
        if self.listener:
            self.listener.close()

    def stop(self) -> None:
        """End our own server; the user's stays."""
        if self.child is None:
            return
        with self._lock:
            self._stopping = True
        if self.listener:
            self.listener.close()
        self.child.terminate()
        try:
            self.child.wait(3.0)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if self.errors:
            self.errors.close()

    def _why(self) -> str:
        lines: list[str] = []
        if self.errors:
            self.errors.seek(0)
            lines = [line for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        said = lines[-1].strip() if lines else "it says nothing"
        return (
            f"{said}; set PREFECT_API_URL to a running server, or PREFECT_HOME (now {prefect_home()}) to another folder"
        )


def start(scheduler: bool = False) -> Server:
    """The user's server, or our own, which is starting.

    Sets PREFECT_API_URL, so it comes before Prefect is imported; call it on the main thread, because Linux ends
    the child with the thread that made it.

    Args:
        scheduler: with the scheduler and the UI, for `serve`.
    """
    url = configured_url()
    if url:
        os.environ[URL] = url
        return Server(url.rstrip("/"))
    home = prefect_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = home / "pretextflow-server.lock"
        lock.touch()
    except OSError as error:
        raise RequestError(
            f"Prefect's folder {home} cannot be written ({error}); set PREFECT_HOME to a writable one, or "
            "PREFECT_API_URL to a running server"
        ) from error
    listener = _listen(SCHEDULER_PORT if scheduler else 0)
    _bypass_proxies()
    own = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    os.environ[URL] = own
    os.environ.setdefault("PREFECT_CLIENT_CSRF_SUPPORT_ENABLED", "false")  # our own server asks for no such token
    settings = SERVER_SETTINGS if scheduler else {**SERVER_SETTINGS, **RUN_SETTINGS}
    errors = tempfile.TemporaryFile(prefix="pretextflow-server-")  # noqa: SIM115 - closed by stop()

    def spawn() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.prefect_child", str(listener.fileno()), str(os.getpid()), str(lock)],
            env={**os.environ, **settings, "PYTHONPATH": python_path()},
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for us; the server must still take the run's last state
        )

    return Server(own, spawn(), errors, listener, spawn)


_early: list[Server] = []


def start_early() -> None:
    """Start the server that the next `connection` takes over; what is wrong is told there."""
    with contextlib.suppress(RequestError):
        _early.append(start())


@contextlib.contextmanager
def connection(scheduler: bool = False) -> Iterator[Server]:
    """`start`, and `stop` in the end."""
    server = _early.pop() if _early else start(scheduler)
    try:
        yield server
    finally:
        server.stop()


def configured_url() -> str | None:
    """PREFECT_API_URL from the environment, a profile, prefect.toml, pyproject.toml or .env; None where unset."""
    if os.environ.get(URL):
        return os.environ[URL]
    if not any(_mentions_url(path) for path in _settings_files()):
        return None  # without importing Prefect, which takes 1 s and more
    from prefect.settings import get_current_settings

    url: Any = get_current_settings().api.url
    return str(url) if url else None


def prefect_home() -> Path:
    """Prefect's folder."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def _settings_files() -> list[Path]:
    profiles = os.environ.get("PREFECT_PROFILES_PATH")
    return [
        Path(profiles).expanduser() if profiles else prefect_home() / "profiles.toml",
        Path("prefect.toml"),
        Path("pyproject.toml"),
        Path(".env"),
    ]


def _mentions_url(path: Path) -> bool:
    try:
        text = path.read_text(errors="replace").lower()
    except OSError:
        return False
    return "prefect" in text and "url" in text if path.name != "prefect.toml" else "url" in text


def _check_foreign(url: str) -> None:
    advice = "start one with `prefect server start`, correct PREFECT_API_URL, or unset it for an embedded server"
    if not url.startswith(("http://", "https://")):
        raise RequestError(f"{URL}={url}: expected http(s)://host:port/api; {advice}")
    try:
        status = _get(f"{url}/health", timeout=ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(f"no Prefect server answers at {URL}={url} ({reason}); {advice}") from error
    if status == 404 or status >= 500:
        hint = "" if url.endswith("/api") else "; the URL usually ends in /api"
        raise RequestError(f"what answers at {URL}={url} is no Prefect API (HTTP {status}){hint}; {advice}")


def _get(url: str, timeout: float) -> int:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def _bypass_proxies() -> None:
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))


def python_path() -> str:
    """PYTHONPATH with which a child finds `flows` where it is not installed."""
    root = str(Path(__file__).parent.parent)
    return os.pathsep.join(dict.fromkeys([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
