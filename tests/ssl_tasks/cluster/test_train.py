"""Pretraining on a real Ray: one and two workers, a worker that dies, what is refused."""

import contextlib
import gzip
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from ssl_tasks.artifact import Artifact
from ssl_tasks.cluster import train, watch
from ssl_tasks.cluster.allocator import KEEP_MEMORY, children_keep_memory
from ssl_tasks.cluster.connect import connection, require_answer
from ssl_tasks.cluster.watch import Standstill
from ssl_tasks.errors import RequestError, StageError, TryAgainError
from ssl_tasks.store import Store
from ssl_tasks.training.config import PretrainConfig

pytestmark = pytest.mark.usefixtures("ray_session")


def pretrain(store: Store, chain: Any, small: dict[str, Any], **options: Any) -> Artifact:
    recipe = {**small, "pretrain": {**small["pretrain"], **options}}
    artifact: Artifact = chain(store, recipe, until="pretrain")["pretrain"]
    return artifact


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, small_recipe: dict[str, Any], chain: Any, ray_session: None
) -> Artifact:
    """Four steps by one worker, which other trainings are compared with."""
    return pretrain(Store.open(str(tmp_path_factory.mktemp("plain") / "store")), chain, small_recipe, max_steps=4)


def losses(artifact: Artifact) -> list[float]:
    found: list[float] = artifact.table("metrics.parquet")["loss"].to_pylist()
    return found


def test_two_workers_learn_what_one_does(store: Store, tmp_path: Path, small: dict[str, Any], chain: Any) -> None:
    options = {"precision": "fp64", "max_steps": 6}
    one = pretrain(store, chain, small, **options)
    two = pretrain(
        Store.open(str(tmp_path / "other")),
        chain,
        small,
        **options,
        num_workers=2,
        cpus_per_worker=2,
        placement="SPREAD",
    )
    assert one.fingerprint == two.fingerprint  # the number of workers is no part of what is made
    assert (one.measured["workers"], two.measured["workers"]) == (1, 2)
    assert len(losses(one)) == 6
    np.testing.assert_allclose(losses(two), losses(one), rtol=0, atol=1e-8)


def test_views_made_where_the_model_is_give_the_same_losses(
    store: Store, plain: Artifact, small: dict[str, Any], chain: Any
) -> None:
    device = pretrain(store, chain, small, max_steps=4, augment_on="device")
    assert device.fingerprint == plain.fingerprint
    assert losses(device) == losses(plain)


def test_the_artifact_is_complete_and_nothing_partial_is_left(store: Store, small: dict[str, Any], chain: Any) -> None:
    artifact = pretrain(store, chain, small)
    assert artifact.names() == [
        *("encoder.json", "encoder.safetensors", "health.parquet", "initial.safetensors", "metrics.parquet"),
        "speed.parquet",
    ]
    trained, initial = (load_file(artifact.path(f"{name}.safetensors")) for name in ("encoder", "initial"))
    assert trained.keys() == initial.keys()
    assert not np.array_equal(trained["conv1.0.weight"], initial["conv1.0.weight"])
    assert artifact.table("metrics.parquet")["step"].to_pylist() == list(range(8))
    speed, seconds = artifact.table("speed.parquet"), artifact.measured["seconds"]
    assert speed["step"].to_pylist() == list(range(8))
    assert sum(speed["compute"].to_pylist()) == pytest.approx(seconds["compute"])
    assert 0 < seconds["feed"] < sum(seconds.values()) < artifact.manifest.seconds
    assert artifact.manifest.files["speed.parquet"].rendering
    bottleneck = artifact.measured["bottleneck"]
    assert sum(bottleneck["shares"].values()) == pytest.approx(1)
    assert artifact.measured["spilled_bytes"] == 0
    assert min(bottleneck["feed_read_seconds"], bottleneck["feed_augment_seconds"]) > 0  # made in the feed's tasks
    health = artifact.table("health.parquet")
    assert health.num_rows == 2
    assert health["knn"].null_count == 0
    assert store.list("partial") == []


def find_worker() -> int | None:
    """A training worker of this test session: others may be training on this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::RayTrainWorker") and descends_from(os.getpid(), path.parent):
                return int(path.parent.name)
        except OSError:
            continue
    return None


def descends_from(ancestor: int, process: Path) -> bool:
    while (pid := int(process.name)) > 1:
        if pid == ancestor:
            return True
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        process = process.parent / parent
    return False


def kill_worker_at(store: Store, step: int, killed: list[int]) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for folder in store.list("partial"):
            progress = store.read_json(f"partial/{folder}/progress.json") or {}
            if progress.get("step", 0) >= step:
                pid = find_worker()
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(progress["step"])
                    return
        time.sleep(0.02)


def test_a_killed_worker_goes_back_to_its_checkpoint_and_ends_with_the_same_bits(
    store: Store, tmp_path: Path, small: dict[str, Any], chain: Any
) -> None:
    options = {"epochs": 60, "checkpoint_every_steps": 5}  # 240 steps, a few seconds
    whole = pretrain(Store.open(str(tmp_path / "whole")), chain, small, **options)
    killed: list[int] = []
    thread = threading.Thread(target=kill_worker_at, args=(store, 20, killed))
    thread.start()
    broken = pretrain(store, chain, small, **options)
    thread.join()
    assert killed
    assert broken.measured["resumed_at"] >= killed[0] - 10
    assert broken.manifest.data_checksum == whole.manifest.data_checksum


def test_nan_fails_the_stage_with_advice_and_without_retries(store: Store, small: dict[str, Any], chain: Any) -> None:
    options = {"method": "dae", "optimizer": {"name": "sgd", "lr": 1e12}}
    with pytest.raises(StageError, match=r"loss is (nan|inf)"):
        pretrain(store, chain, small, **options)


@contextlib.contextmanager
def others_use(cpus: int) -> Iterator[None]:
    """Of the eight CPUs that there are."""
    import ray

    held = ray.util.placement_group([{"CPU": cpus}])
    assert held.wait(10)
    try:
        yield
    finally:
        ray.util.remove_placement_group(held)


def free_cpus_become(count: float) -> bool:
    import ray

    until = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) != count and time.monotonic() < until:
        time.sleep(0.1)
    return bool(ray.available_resources().get("CPU", 0) == count)


class HalfAnHour(Standstill):
    """Goes by as soon as the worker waits for its first batch."""

    def see(self, progress: dict[str, Any] | None) -> None:
        super().see(progress)
        if (progress or {}).get("note") == "waiting for the first batch":
            self.since -= 1800


def forever() -> None:
    time.sleep(600)


def test_a_wait_of_rays_own_is_ended_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster of others the driver waits in `ray.get`, which takes no exception of a signal but Ctrl-C's."""
    import ray

    monkeypatch.setattr(watch, "ask", lambda config, starts: watch.Cause("no CPU"))
    task = ray.remote(num_cpus=1)(forever).remote()
    job = Mock(config=PretrainConfig(timeout_minutes=0.01), partial="partial/x", out=Mock(store=store, attempt="a"))
    trainer = Mock(fit=lambda: ray.get(task, timeout=60))
    with pytest.raises(TryAgainError, match=r"no progress for 0\.01 minutes"):
        train._fit(job, trainer, Mock(dead=lambda: ""), use_gpu=False)
    assert trainer.let_go.called
    ray.cancel(task, force=True)


def test_a_feed_that_gets_no_cpu_ends_the_training_and_gives_all_back(
    store: Store, small: dict[str, Any], chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data waits for ever without a word (ray#41603)."""
    monkeypatch.setattr(watch, "Standstill", HalfAnHour)
    with others_use(7):
        with pytest.raises(TryAgainError, match=r"no progress for 30 minutes .* at step 0: no CPU of the cluster"):
            pretrain(store, chain, small)
        assert free_cpus_become(1)


def test_workers_wait_for_what_others_use_and_not_for_ever(
    store: Store, small: dict[str, Any], chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "GROUP_LOOKS", 60)  # on a busy machine they come late into the line
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "2")  # the wait in the line takes no signal
    with others_use(8):
        with pytest.raises(TryAgainError, match=r"wait for 2 CPU, which other work .* 0\.03 minutes \(pretrain\.queue"):
            pretrain(store, chain, small, timeout_minutes=0.02, queue_minutes=0.03)
        assert free_cpus_become(0)
    assert free_cpus_become(8)  # no place in the cluster's line is kept


def test_more_workers_than_the_cluster_holds_are_refused(store: Store, small: dict[str, Any], chain: Any) -> None:
    with pytest.raises(RequestError, match=r"pretrain\.num_workers: this run needs 16 CPU"):
        pretrain(store, chain, small, num_workers=8)


def test_resources_that_no_node_has_are_refused(store: Store, small: dict[str, Any], chain: Any) -> None:
    with pytest.raises(RequestError, match=r"no node has 1 a100; lower pretrain\.resources_per_worker"):
        pretrain(store, chain, small, resources_per_worker={"a100": 1})


def test_a_traced_training_makes_the_same_artifact_and_a_trace(
    store: Store, plain: Artifact, small: dict[str, Any], chain: Any
) -> None:
    traced = pretrain(store, chain, small, max_steps=4, profile_steps=2)
    assert set(traced.names()) - set(plain.names()) == {"trace.json.gz"}
    assert traced.fingerprint == plain.fingerprint
    assert traced.manifest.data_checksum == plain.manifest.data_checksum
    with gzip.open(traced.path("trace.json.gz"), "rt") as stream:
        assert json.load(stream)["traceEvents"]


def test_a_gpu_that_is_not_there_is_refused(store: Store, small: dict[str, Any], chain: Any) -> None:
    with pytest.raises(RequestError, match=r"pretrain\.use_gpu"):
        pretrain(store, chain, small, use_gpu=True)


def test_training_starts_from_another_encoder(plain: Artifact, small: dict[str, Any], chain: Any) -> None:
    store = plain.store
    second = pretrain(store, chain, small, max_steps=2, init_from=plain.fingerprint)
    assert losses(second)[0] < losses(plain)[0]
    one, two = (load_file(artifact.path("initial.safetensors")) for artifact in (plain, second))
    assert all(np.array_equal(one[name], two[name]) for name in one)  # the baseline stays the random start
    with pytest.raises(RequestError, match=r"pretrain\.init_from"):
        pretrain(store, chain, small, max_steps=2, init_from="no-such-artifact")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "host:port"])
def test_no_cluster_at_the_address(address: str) -> None:
    with pytest.raises(RequestError, match="ray_address"):
        require_answer(address)


def test_processes_of_a_local_ray_keep_their_memory_and_this_one_and_its_children_do_not(ray_session: None) -> None:
    import ray

    told = ray.get(ray.remote(lambda: {name: os.environ.get(name) for name in KEEP_MEMORY}).remote())
    assert told == KEEP_MEMORY
    assert not set(KEEP_MEMORY) & set(os.environ)


def test_a_users_own_settings_of_the_allocator_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    with children_keep_memory():
        assert os.environ["MALLOC_ARENA_MAX"] == "4"
        assert os.environ["MALLOC_MMAP_MAX_"] == "0"
    assert os.environ["MALLOC_ARENA_MAX"] == "4"
    assert "MALLOC_MMAP_MAX_" not in os.environ


def test_a_connection_inside_another_is_the_same(ray_session: None) -> None:
    import ray

    with connection() as inner:
        assert inner.embedded
    assert ray.is_initialized()
