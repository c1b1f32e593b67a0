"""Run records: order, state of what was killed, finding one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ssl_tasks.errors import RequestError
from ssl_tasks.store import Store
from ssl_tasks.store.runs import (
    RunRecord,
    StageRecord,
    find_run,
    list_runs,
    load_run,
    new_run_id,
    newest_unfinished,
    save_run,
)


def add(store: Store, run_id: str, **values: Any) -> RunRecord:
    stages = [StageRecord(name="ingest", fingerprint="f", reason="first time")]
    record = RunRecord(run_id=run_id, name="x", recipe={}, stages=stages, **values)
    save_run(store, record)
    return record


def test_ids_sort_by_time_and_name_their_recipe() -> None:
    first = new_run_id("digits")
    assert first.split("-")[2] == "digits"
    assert first[:15] <= new_run_id("a")[:15]
    assert new_run_id("digits") != first


def test_a_record_survives_the_store_and_the_newest_comes_first(store: Store) -> None:
    first = add(store, "20260101-000000-x-aaaa", state="completed", metrics={"transfer": {"summary": []}})
    add(store, "20260102-000000-x-bbbb", state="failed", error="boom")
    assert load_run(store, first.run_id) == first
    assert [record.state for record in list_runs(store)] == ["failed", "completed"]


def test_a_running_record_of_a_dead_process_is_interrupted(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    add(store, "20260101-000000-x-aaaa", pid=dead.pid)
    record = load_run(store, "20260101-000000-x-aaaa")
    assert record is not None
    assert record.state == "interrupted"
    assert record.stages[0].status == "skipped"
    assert newest_unfinished(store).run_id == record.run_id


def test_a_reused_process_number_does_not_keep_a_run_alive(store: Store) -> None:
    add(store, "20260101-000000-x-aaaa", born="1")
    record = load_run(store, "20260101-000000-x-aaaa")
    assert record is not None
    assert record.state == "interrupted"


def test_a_running_record_of_this_process_or_of_another_host_is_alive(store: Store) -> None:
    assert add(store, "20260101-000000-x-aaaa").is_alive()
    assert add(store, "20260101-000000-x-bbbb", host="elsewhere", pid=1, born="1").is_alive()
    assert {record.state for record in list_runs(store)} == {"running"}


def test_the_newest_unfinished_run_is_found(store: Store) -> None:
    with pytest.raises(RequestError, match="no unfinished run"):
        newest_unfinished(store)
    add(store, "20260101-000000-x-aaaa", state="failed")
    add(store, "20260102-000000-x-bbbb", state="cancelled")
    add(store, "20260103-000000-x-cccc", state="completed")
    add(store, "20260104-000000-x-dddd")
    assert newest_unfinished(store).run_id == "20260102-000000-x-bbbb"


def test_a_run_is_found_by_the_start_of_its_id(store: Store) -> None:
    with pytest.raises(RequestError, match="there are no runs yet"):
        find_run(store, "2026")
    add(store, "20260101-000000-x-aaaa")
    add(store, "20260102-000000-x-bbbb")
    assert find_run(store, "20260101").run_id == "20260101-000000-x-aaaa"
    with pytest.raises(RequestError, match="2 runs start with this"):
        find_run(store, "2026")
    with pytest.raises(RequestError, match="did you mean 20260102-000000-x-bbbb"):
        find_run(store, "20260103-000000-x-bbbb")


def test_a_broken_record_is_left_out_and_told_when_asked_for(store: Store) -> None:
    store.write_json("runs/20260101-000000-x-aaaa.json", {"run_id": 3})
    assert list_runs(store) == []
    with pytest.raises(RequestError, match="cannot be read"):
        find_run(store, "20260101-000000-x-aaaa")
