"""A run on three hosts (network namespaces), started by the scripts of the container image. Not in the test command."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("hosts.sh")


def namespaces() -> bool:
    """Whether this user may make networks."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    return subprocess.run(["ip", "netns", "list"], capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces(), reason="needs root, ip and unshare: the run on several hosts was not made")
def test_a_run_on_three_hosts_trains_on_the_workers(tmp_path: Path) -> None:
    command = ["run", "digits", "--json", "--store", str(tmp_path / "store"), "--set", "pretrain.epochs=4"]
    command += ["--set", "transfer.scratch.steps=5"]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    before = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path), *command], env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["state"] == "completed"
    assert answer["metrics"]["pretrain"]["steps"] == 16
    workers = list((tmp_path / "ray-worker").glob("session_*/logs/worker-*.err"))
    assert any("RayTrainWorker" in log.read_text(errors="replace") for log in workers)  # not on the driver's host
    assert subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout == before
