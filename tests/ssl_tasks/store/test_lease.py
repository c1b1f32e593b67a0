"""Two runs that want the same artifact: one makes it, the other waits, the dead do not block."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from ssl_tasks.store import Store
from ssl_tasks.store import lease as lease_module
from ssl_tasks.store.lease import is_held, lease


def test_a_second_holder_waits_for_the_first(store: Store) -> None:
    events: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(5)
        with lease(store, "f", on_wait=lambda who: events.append(f"waits for {who.split()[0]}")):
            events.append("second in")

    thread = threading.Thread(target=second)
    thread.start()
    with lease(store, "f"):
        inside.set()
        time.sleep(1.0)
        assert is_held(store, "f")
        events.append("first out")
    thread.join(5)
    assert events == [f"waits for {socket.gethostname()}", "first out", "second in"]
    assert not is_held(store, "f")


def test_a_dead_process_of_this_host_is_not_waited_for(store: Store) -> None:
    code = f"""
import os
from ssl_tasks.store import Store
from ssl_tasks.store.lease import lease
with lease(Store({store.uri!r}), "f"):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert store.list("leases") == ["f.json"]
    began = time.monotonic()
    with lease(store, "f"):
        assert time.monotonic() - began < 2


def test_a_holder_on_another_host_expires_when_its_heart_stops(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TTL_SECONDS", 0.6)
    store.write_json("leases/f.json", {"holder": "x", "host": "elsewhere", "pid": 1, "born": "1", "beat": 0})
    began = time.monotonic()
    with lease(store, "f"):
        assert 0.5 < time.monotonic() - began < 3


def test_a_beating_holder_on_another_host_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TTL_SECONDS", 0.6)
    held = {"holder": "x", "host": "elsewhere", "pid": 1, "born": "1"}
    stop = threading.Event()

    def beat() -> None:
        for count in range(10):
            store.write_json("leases/f.json", {**held, "beat": count})
            if stop.wait(0.2):
                break
        store.delete("leases/f.json")

    thread = threading.Thread(target=beat)
    store.write_json("leases/f.json", held)
    thread.start()
    began = time.monotonic()
    with lease(store, "f"):
        assert time.monotonic() - began > 1.5
    thread.join()


def test_a_lease_that_a_crash_cut_short_expires(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TTL_SECONDS", 0.6)
    store.write_bytes("leases/f.json", b'{"holder": "x", "ho')
    with lease(store, "f") as still_ours:
        assert still_ours()


def test_a_holder_that_stood_still_learns_that_another_took_over(store: Store) -> None:
    with lease(store, "f") as still_ours:
        assert still_ours()
        store.write_json("leases/f.json", {"holder": "another", "host": "elsewhere", "pid": 1, "born": "1"})
        assert not still_ours()
    assert store.list("leases") == ["f.json"]  # the other's lease is left alone
