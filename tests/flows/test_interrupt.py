"""The watch for a cancel in the UI: it interrupts a run, and nothing that comes after one."""

from __future__ import annotations

import threading
import uuid
from types import SimpleNamespace
from typing import Any, Self

import prefect.client.orchestration
import pytest
from prefect.states import Cancelling

from flows import interrupt
from flows.interrupt import CancelWatcher


class Client:
    """Says that the run is being cancelled, once it is let."""

    def __init__(self) -> None:
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read_flow_run(self, _id: uuid.UUID) -> Any:
        self.asked.set()
        assert self.may_answer.wait(10)
        return SimpleNamespace(state=Cancelling())


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(prefect.client.orchestration, "get_client", lambda sync_client: client)
    monkeypatch.setattr(interrupt, "POLL_SECONDS", 0.01)
    return client


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was sent to the main thread."""
    sent: list[int] = []
    monkeypatch.setattr(interrupt.signal, "pthread_kill", lambda _thread, number: sent.append(number))
    return sent


def test_a_cancel_interrupts_the_main_thread(client: Client, signals: list[int]) -> None:
    client.may_answer.set()
    with CancelWatcher(str(uuid.uuid4())) as watcher:
        watcher._thread.join(10)
        assert (watcher.cancelled, signals) == (True, [interrupt.signal.SIGINT])


def test_an_answer_that_comes_after_the_stages_interrupts_nothing(client: Client, signals: list[int]) -> None:
    watcher = CancelWatcher(str(uuid.uuid4()))
    client.may_answer = watcher._stop  # which says that the stages have ended
    with watcher:
        assert client.asked.wait(10)
    watcher._thread.join(10)
    assert not watcher._thread.is_alive()
    assert (watcher.cancelled, signals) == (False, [])
