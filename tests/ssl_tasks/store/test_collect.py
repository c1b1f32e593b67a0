"""Garbage collection keeps what kept runs need, what is being made, and what can be resumed."""

from __future__ import annotations

import pytest

from ssl_tasks.artifact import FileEntry, Manifest
from ssl_tasks.store import Store
from ssl_tasks.store.collect import collect
from ssl_tasks.store.lease import lease
from ssl_tasks.store.runs import RunRecord, RunState, StageRecord, save_run


def put(store: Store, fingerprint: str, attempt: str = "a1", **parents: str) -> str:
    """An artifact with one file of 1,000 bytes."""
    store.write_bytes(f"objects/{fingerprint}/{attempt}/data.bin", b"x" * 1000)
    files = {"data.bin": FileEntry(bytes=1000, sha256="-")}
    store.commit(
        Manifest(
            fingerprint=fingerprint, attempt=attempt, stage="s", versions={}, config={}, parents=parents, rows=1,
            files=files, measured={}, started=0, seconds=0, libraries={},
        )
    )  # fmt: skip
    return fingerprint


def add_run(store: Store, day: int, *fingerprints: str, state: RunState = "completed") -> None:
    stages = [StageRecord(name=f"s{n}", fingerprint=f, reason="") for n, f in enumerate(fingerprints)]
    save_run(store, RunRecord(run_id=f"202601{day:02d}-000000-x-aaaa", name="x", recipe={}, state=state, stages=stages))


def test_ancestors_of_what_a_kept_run_names_are_kept(store: Store) -> None:
    put(store, "raw")
    put(store, "mid", parent="raw")
    put(store, "top", parent="mid")
    put(store, "orphan", parent="raw")
    add_run(store, 1, "top")
    gone = collect(store)
    assert gone.artifacts == ["orphan"]
    assert gone.bytes_freed > 1000
    assert store.list("objects") == ["mid", "raw", "top"]
    assert store.lookup("top") is not None
    assert collect(store).bytes_freed == 0


def test_only_the_newest_runs_are_kept_where_asked(store: Store) -> None:
    for day in (1, 2, 3):
        add_run(store, day, put(store, f"f{day}"))
    gone = collect(store, keep_runs=2)
    assert gone.runs == ["20260101-000000-x-aaaa"]
    assert gone.artifacts == ["f1"]
    assert store.list("runs") == ["20260102-000000-x-aaaa.json", "20260103-000000-x-aaaa.json"]


def test_a_running_run_is_kept_whatever_its_age(store: Store) -> None:
    add_run(store, 1, put(store, "old"), state="running")
    add_run(store, 2, put(store, "new"))
    assert collect(store, keep_runs=1).artifacts == []


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store) -> None:
    put(store, "orphan")
    store.write_bytes("partial/lost/checkpoint", b"x" * 500)
    said = collect(store, dry_run=True)
    assert store.lookup("orphan") is not None
    done = collect(store)
    assert (said.artifacts, said.partials, said.bytes_freed) == (done.artifacts, done.partials, done.bytes_freed)
    assert store.list("objects") == store.list("partial") == []


def test_replaced_attempts_and_wrecks_go_and_the_artifact_stays(store: Store) -> None:
    put(store, "kept", "a1")
    put(store, "kept", "a2")
    store.write_bytes("objects/wreck/a1/data.bin", b"x" * 10)
    add_run(store, 1, "kept")
    gone = collect(store)
    assert gone.attempts == ["kept/a1"]
    assert gone.artifacts == ["wreck"]
    assert gone.bytes_freed == 1010
    assert store.list("objects/kept") == ["a2", "manifest.json"]


def test_nothing_that_is_leased_is_touched(store: Store) -> None:
    put(store, "busy")
    store.write_bytes("partial/busy/checkpoint", b"x")
    with lease(store, "busy"):
        gone = collect(store, keep_runs=0)
        assert gone.artifacts == gone.partials == gone.leases == []
    assert collect(store, keep_runs=0).artifacts == ["busy"]


def test_checkpoints_of_a_run_that_can_be_continued_are_kept(store: Store) -> None:
    for name in ("resumable", "finished", "forgotten"):
        store.write_bytes(f"partial/{name}/checkpoint", b"x")
    add_run(store, 1, "resumable", state="interrupted")
    add_run(store, 2, "finished")
    assert collect(store).partials == ["finished", "forgotten"]
    assert collect(store, keep_runs=1).partials == ["resumable"]


def test_leases_of_dead_processes_go(store: Store) -> None:
    import socket

    store.write_json("leases/dead.json", {"holder": "h", "host": socket.gethostname(), "pid": 1, "born": "-1"})
    store.write_json("leases/far.json", {"holder": "h", "host": "elsewhere", "pid": 1, "born": "1"})
    assert collect(store).leases == ["dead.json"]
    assert store.list("leases") == ["far.json"]


@pytest.mark.parametrize("text", [b"{", b'{"fingerprint": 3}'])
def test_a_broken_manifest_does_not_stop_it(store: Store, text: bytes) -> None:
    put(store, "broken")
    store.write_bytes("objects/broken/manifest.json", text)
    add_run(store, 1, "broken")
    assert collect(store).artifacts == []


@pytest.mark.parametrize(("section", "key"), [("pretrain", "init_from"), ("split", "earlier"), ("adopt", "encoder")])
@pytest.mark.parametrize("reference", ["{}", "/elsewhere/objects/{}"])
def test_what_a_failed_run_builds_upon_is_kept(store: Store, section: str, key: str, reference: str) -> None:
    put(store, "raw")
    put(store, "base", parent="raw")
    recipe = {section: {key: reference.format("base")}}
    save_run(store, RunRecord(run_id="20260101-000000-x-aaaa", name="x", recipe=recipe, state="failed", stages=[]))
    assert collect(store).artifacts == []
    save_run(store, RunRecord(run_id="20260101-000000-x-aaaa", name="x", recipe={}, state="failed", stages=[]))
    assert collect(store).artifacts == ["base", "raw"]
