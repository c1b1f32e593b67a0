"""Where a run that is disturbed takes place: a folder, a disk of its own, object storage, a cluster, several hosts.

with PLACES["folder"](folder, recipe) as place:
    place.run("run", str(place.recipe)).finish()
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from relay import Relay
from tests_poison import DEADLY_PILLOW, POISON
from tests_runs import COMMAND, RECIPE, Run

DISK = "size=256m"
CC = "cc"
CLOCK_FILE = "clock-offset"
NUM_PICTURES = 640


@dataclass
class Place:
    """What a run is given, and what a fault can reach."""

    folder: Path
    recipe: Path
    store: str
    environment: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = COMMAND
    relay: Relay | None = None
    nodes: Any = None

    def run(self, *arguments: str) -> Run:
        """Start the command line here."""
        return Run(self.store, *arguments, environment=self.environment, command=self.command)

    def left(self) -> list[str]:
        """What the runs have left in what outlives them."""
        return self.nodes.left() if self.nodes else []


Opened = Callable[[Path, Path], AbstractContextManager[Place]]


@contextlib.contextmanager
def in_folder(folder: Path, recipe: Path) -> Iterator[Place]:
    """Nothing special."""
    yield Place(folder, recipe, str(folder / "store"))


@contextlib.contextmanager
def on_small_disk(folder: Path, recipe: Path) -> Iterator[Place]:
    """The store is a file system of its own, which root can fill and make read-only."""
    store = folder / "store"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(store)], check=True)
    try:
        yield Place(folder, recipe, str(store))
    finally:
        subprocess.run(["umount", "--lazy", str(store)], check=True)


@contextlib.contextmanager
def on_object_storage(folder: Path, recipe: Path) -> Iterator[Place]:
    """The store is a bucket of an S3 server (moto) on this machine, behind a relay."""
    import boto3
    from moto.server import ThreadedMotoServer

    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    os.environ |= environment  # the suite reads the store too
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="data")
        environment["XDG_CACHE_HOME"] = str(folder / "cache")
        with Relay((host, port)) as relay:
            store = f"s3://data/{folder.name}?endpoint_override={relay.address}&scheme=http&region=us-east-1"
            yield Place(folder, recipe, store, environment, relay=relay)
    finally:
        server.stop()


@contextlib.contextmanager
def with_own_clock(folder: Path, recipe: Path) -> Iterator[Place]:
    """The time of day of all processes of the run is the machine's and what `move_clock` has set."""
    library = folder / "clock.so"
    subprocess.run(
        [CC, "-shared", "-fPIC", "-O2", "-o", library, Path(__file__).with_name("clock.c"), "-ldl"], check=True
    )
    move_clock(folder, 0)
    environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(folder / CLOCK_FILE)}
    yield Place(folder, recipe, str(folder / "store"), environment)


def move_clock(folder: Path, seconds: int) -> None:
    """Written in place: the file is mapped."""
    path = folder / CLOCK_FILE
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@contextlib.contextmanager
def with_poison(folder: Path, recipe: Path) -> Iterator[Place]:
    """Files of pictures, over one of which the decoder aborts."""
    poisoned = write_pictures(folder)
    with open(poisoned, "ab") as file:
        file.write(POISON)
    (folder / "bug").mkdir()
    (folder / "bug" / "sitecustomize.py").write_text(DEADLY_PILLOW)
    path = os.pathsep.join([str(folder / "bug"), str(Path(__file__).parents[2])])
    yield Place(folder, recipe_of_pictures(folder), str(folder / "store"), {"PYTHONPATH": path})


@contextlib.contextmanager
def with_unreadable(folder: Path, recipe: Path) -> Iterator[Place]:
    """The same files, of which the same one cannot be read: what a run with poison is compared with."""
    os.truncate(write_pictures(folder), 20)
    yield Place(folder, recipe_of_pictures(folder), str(folder / "store"))


def write_pictures(folder: Path) -> Path:
    """Digits as PNG files in a folder for each label; the one to be spoiled."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (picture, label) in enumerate(zip(digits.images[:NUM_PICTURES], digits.target, strict=False)):
        path = folder / "pictures" / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15).astype("uint8")).save(path)
    return path


def recipe_of_pictures(folder: Path) -> Path:
    """As the suite's, of 24 steps."""
    recipe = {**RECIPE, "ingest": {"path": str(folder / "pictures")}}
    path = folder / "faults.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def missing(name: str) -> str:
    """What the place needs and this machine lacks; "" where it lacks nothing."""
    needs = {
        "small_disk": ("root", os.geteuid() == 0),
        "own_clock": ("a C compiler", shutil.which(CC) is not None),
        "nodes_with_redis": ("redis-server", shutil.which("redis-server") is not None),
        "hosts": ("root, ip and unshare", os.geteuid() == 0 and _networks()),
    }
    what, there = needs.get(name, ("", True))
    return "" if there else what


def _networks() -> bool:
    if not (shutil.which("ip") and shutil.which("unshare")):
        return False
    return subprocess.run(["ip", "netns", "list"], capture_output=True).returncode == 0


def _nodes(redis: bool) -> Opened:
    def opened(folder: Path, recipe: Path) -> AbstractContextManager[Place]:
        from nodes import several_nodes  # imports Ray

        return several_nodes(folder, recipe, redis)

    return opened


@contextlib.contextmanager
def on_hosts(folder: Path, recipe: Path) -> Iterator[Place]:
    """Head, worker and driver on hosts of their own; see hosts.sh."""
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ("bash", str(Path(__file__).with_name("hosts.sh")), str(folder))
    before = _namespaces()
    try:
        yield Place(folder, recipe, str(folder / "store"), environment, command)
    finally:
        for name in _namespaces() - before:  # of a run that hung, which takes its script with it
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            subprocess.run(["kill", "-9", *pids], stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "netns", "del", name])


def _namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    return {line.split()[0] for line in listed.splitlines()}


PLACES: dict[str, Opened] = {
    "folder": in_folder,
    "small_disk": on_small_disk,
    "object_storage": on_object_storage,
    "own_clock": with_own_clock,
    "poison": with_poison,
    "unreadable": with_unreadable,
    "nodes": _nodes(redis=False),
    "nodes_with_redis": _nodes(redis=True),
    "hosts": on_hosts,
}
