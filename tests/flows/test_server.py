"""The Prefect server: ours lives as long as we do, and a foreign one must answer."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import server as prefect_server
from ssl_tasks.errors import RequestError

ROOT = Path(__file__).parents[2]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_two_at_once_share_a_new_database(servers: Any) -> None:
    for url in servers.urls:
        with urllib.request.urlopen(f"{url}/health") as answer:
            assert answer.status == 200


def child_of(parent: int) -> int:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if path.read_text().rpartition(")")[2].split()[1] == str(parent):
                return int(path.parent.name)
    raise AssertionError(f"{parent} has no child")


def test_an_embedded_server_that_dies_is_replaced(servers: Any) -> None:
    parent, killed = servers.parents[1].pid, servers.children[1]
    os.kill(killed, signal.SIGKILL)
    with urllib.request.urlopen(f"{servers.urls[1]}/health", timeout=120) as answer:  # waits, and is not refused
        assert answer.status == 200
    servers.children[1] = child_of(parent)
    assert servers.children[1] != killed


def test_the_embedded_server_dies_with_its_killed_parent(servers: Any) -> None:
    parent, child = servers.parents[1], servers.children[1]
    assert is_running(child)
    parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)
    assert is_running(servers.children[0])


class Page(http.server.BaseHTTPRequestHandler):
    """Something that answers and is no Prefect."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def other_service() -> Iterator[str]:
    service = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{service.server_port}"
    service.shutdown()
    service.server_close()
    thread.join()


def refused(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PREFECT_API_URL", url)
    with pytest.raises(RequestError) as caught:
        prefect_server.start().wait()
    return str(caught.value)


def test_a_server_that_does_not_answer_is_refused_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    message = refused("http://127.0.0.1:9/api", monkeypatch)
    assert "no Prefect server answers at PREFECT_API_URL=http://127.0.0.1:9/api" in message
    assert "prefect server start" in message
    assert time.monotonic() - began < 15  # an embedded one has 180


def test_what_is_no_prefect_api_is_refused(monkeypatch: pytest.MonkeyPatch, other_service: str) -> None:
    assert "no Prefect API (HTTP 404); the URL usually ends in /api" in refused(other_service, monkeypatch)
    assert "expected http" in refused("localhost:4200", monkeypatch)


def test_a_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"Prefect's folder .*file cannot be written"):
        prefect_server.start()


def test_a_profile_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask = "from flows.server import configured_url; print(configured_url())"
    (tmp_path / "profiles.toml").write_text('active = "far"\n[profiles.far]\nPREFECT_API_URL = "http://far:4200/api"\n')
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "http://far:4200/api\n"
