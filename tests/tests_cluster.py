"""A Ray cluster of several nodes on this machine, with a token, in a process of its own: the tests' has another Ray.

with cluster({"num_cpus": 2}, {"num_cpus": 1}) as started:
    started.address, started.server
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOKEN = "3f" * 16
CODE = """
import json, sys
from ray.cluster_utils import Cluster

head, *nodes = [{"object_store_memory": 100 << 20, **node} for node in json.loads(sys.argv[1])]
cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
for node in nodes:
    cluster.add_node(**node)
print("started", cluster.address, cluster.head_node.webui_url or "nowhere", flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class Started:
    """A running cluster."""

    address: str
    """host:port."""
    server: str
    """http://host:port of its job server, where the head was told `include_dashboard`; else http://nowhere."""


@contextlib.contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[Started]:
    """Start the nodes, the head first, as `ray.init` and `Cluster.add_node` take them; this process has the token."""
    pipe = subprocess.PIPE
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # jobs call `python`
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "PATH": path}
        env["RAY_local_fs_capacity_threshold"] = "1"  # by default Ray spills nothing to a disk that is 95% full
        command = [sys.executable, "-c", CODE, json.dumps(nodes)]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as process:
            assert process.stdout is not None
            found = next((line.split() for line in process.stdout if line.startswith("started ")), None)
            assert found, "the cluster did not start"
            yield Started(found[1], f"http://{found[2]}")
            process.communicate(timeout=60)
