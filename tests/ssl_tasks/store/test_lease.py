"""Two runs that want the same artifact: one makes it, the other waits, the dead do not block."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from ssl_tasks.store import Store
from ssl_tasks.store import lease as lease_module
from ssl_tasks.store.lease import is_held, lease


class FakeTime:
    """What `lease` knows of time: sleeping is instant, and `meanwhile` is called with the seconds that have passed."""

    def __init__(self, meanwhile: Callable[[float], None] = lambda _now: None) -> None:
        self.now, self.meanwhile = 0.0, meanwhile

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.now)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(lease_module, "time", fake)
    return fake


def test_a_second_holder_waits_for_the_first(store: Store) -> None:
    events: list[str] = []
    waits = threading.Event()

    def wait(who: str) -> None:
        events.append(f"waits for {who.split()[0]}")
        waits.set()

    def second() -> None:
        with lease(store, "f", on_wait=wait):
            events.append("second in")

    thread = threading.Thread(target=second)
    with lease(store, "f"):
        thread.start()
        assert waits.wait(60)
        assert is_held(store, "f")
        events.append("first out")
    thread.join(60)
    assert events == [f"waits for {socket.gethostname()}", "first out", "second in"]
    assert not is_held(store, "f")


def test_a_dead_process_of_this_host_is_not_waited_for(store: Store, fake_time: FakeTime) -> None:
    code = f"""
import os
from ssl_tasks.store import Store
from ssl_tasks.store.lease import lease
with lease(Store({store.uri!r}), "f"):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert store.list("leases") == ["f.json"]
    with lease(store, "f"):
        assert fake_time.now < 2


def test_a_holder_on_another_host_expires_when_its_heart_stops(store: Store, fake_time: FakeTime) -> None:
    store.write_json("leases/f.json", {"holder": "x", "host": "elsewhere", "pid": 1, "born": "1", "beat": 0})
    with lease(store, "f"):
        assert lease_module.TTL_SECONDS < fake_time.now < lease_module.TTL_SECONDS + 1


def test_a_beating_holder_on_another_host_is_waited_for(store: Store, fake_time: FakeTime) -> None:
    held = {"holder": "x", "host": "elsewhere", "pid": 1, "born": "1"}
    ends = 3 * lease_module.TTL_SECONDS

    def beat(now: float) -> None:
        if now < ends:
            store.write_json("leases/f.json", {**held, "beat": int(now / lease_module.BEAT_SECONDS)})
        else:
            store.delete("leases/f.json")
            fake_time.meanwhile = lambda _now: None

    store.write_json("leases/f.json", held)
    fake_time.meanwhile = beat
    with lease(store, "f"):
        assert ends < fake_time.now < ends + 1


def test_a_lease_that_a_crash_cut_short_expires(store: Store, fake_time: FakeTime) -> None:
    store.write_bytes("leases/f.json", b'{"holder": "x", "ho')
    with lease(store, "f") as still_ours:
        assert still_ours()
        assert fake_time.now > lease_module.TTL_SECONDS


def test_a_holder_that_stood_still_learns_that_another_took_over(store: Store) -> None:
    with lease(store, "f") as still_ours:
        assert still_ours()
        store.write_json("leases/f.json", {"holder": "another", "host": "elsewhere", "pid": 1, "born": "1"})
        assert not still_ours()
    assert store.list("leases") == ["f.json"]  # the other's lease is left alone
