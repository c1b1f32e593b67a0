"""A Ray cluster of several nodes on this machine, in a process of its own that takes orders line by line.

    python tests/faults/nodes.py < orders      add_node, kill_node, kill_head, start_head; prints "done" after each

`several_nodes` is how the suite uses it. With Redis the head's books outlive it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests_runs import MARK, marked, title_of

STORE_BYTES = 200 << 20
WORKER_CPUS = 2
LEFT_SECONDS = 30.0
RAYS_OWN = (
    "ray::IDLE",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "ray::_AutoscalingCoordinatorActor",
    "ray::_StatsActor",
    "ray::_UsageCollectionActor",
)
"""Agents of nodes, and detached actors that Ray Data keeps one of in a cluster, whoever used it first."""
PLACEMENT_GROUPS = """
import json, sys
from ssl_tasks.cluster.connect import connection
with connection(sys.argv[1]):
    import ray
    table = ray.util.placement_group_table()
    print(json.dumps([f"placement group {name} {one['state']}" for name, one in table.items()
                      if one["state"] != "REMOVED"]))
"""


@dataclass
class Nodes:
    """The cluster, from outside."""

    folder: Path
    environment: dict[str, str]
    """Of those who connect; changed in place, for the cluster's address changes with a new head."""
    redis: subprocess.Popen[bytes] | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: Any = None

    def start(self) -> None:
        """A head without CPUs and one node that has some."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        # the runs' mark is another: theirs must go with them, and the cluster's stay
        env = {**os.environ, **self.environment, "PYTHONPATH": path, MARK: self.mark}
        self.log = open(self.folder / "cluster.log", "ab")  # noqa: SIM115 - closed by `stop`
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=pipe, stdout=pipe, stderr=self.log, text=True, env=env
        )
        self.environment["RAY_ADDRESS"] = self._answer().split()[1]

    def order(self, what: str) -> None:
        """Have it done, and return when it is."""
        print(what, file=self.process.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        for line in self.process.stdout:
            if line.startswith("done"):
                return str(line)
        raise AssertionError(f"the cluster ended: {(self.folder / 'cluster.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End all of it."""
        if self.process.poll() is None:
            self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    def left(self) -> list[str]:
        """Processes and placement groups that work for a run."""
        deadline = time.monotonic() + LEFT_SECONDS
        while (busy := self._busy()) and time.monotonic() < deadline:
            time.sleep(0.5)
        env = {**os.environ, **self.environment, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        command = [sys.executable, "-c", PLACEMENT_GROUPS, self.environment["RAY_ADDRESS"]]
        said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        groups: list[str] = json.loads(said.stdout.splitlines()[-1]) if said.returncode == 0 else [said.stderr[-300:]]
        return busy + groups

    def _busy(self) -> list[str]:
        titles = [title_of(pid) for pid in marked(self.mark, "ray::")]
        return [title[:120].strip() for title in titles if title and not title.startswith(RAYS_OWN)]


@contextlib.contextmanager
def several_nodes(folder: Path, recipe: Path, redis: bool) -> Iterator[Any]:
    """A place whose runs use a cluster of a head and a node, to which others can be added."""
    from places import Place

    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    with contextlib.ExitStack() as at_end:
        if redis:
            environment["RAY_REDIS_ADDRESS"] = at_end.enter_context(_redis(folder))
        nodes = Nodes(folder, environment)
        nodes.start()
        at_end.callback(nodes.stop)
        yield Place(folder, recipe, str(folder / "store"), environment, nodes=nodes)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def main() -> None:
    """Obey until the orders end."""
    from ray.cluster_utils import Cluster

    small: dict[str, Any] = {"object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    workers = [cluster.add_node(num_cpus=WORKER_CPUS, **small)]
    print(f"done {cluster.address}", flush=True)
    for order in map(str.strip, sys.stdin):
        if order == "add_node":
            workers.append(cluster.add_node(num_cpus=WORKER_CPUS, **small))
        elif order == "kill_node":
            cluster.remove_node(workers.pop(0), allow_graceful=False)
        elif order == "kill_head":
            cluster.head_node.kill_gcs_server(check_alive=False)
        elif order == "start_head":
            cluster.head_node.start_gcs_server()
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
