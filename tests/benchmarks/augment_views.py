"""How fast two SimCLR views are made, beside torchvision v2 and albumentations 2.0.8 in the same run. Prints JSON.

    python tests/benchmarks/augment_views.py [ROUNDS] [SECONDS]

Sides take turns of SECONDS each, ROUNDS times; the figures are medians over rounds, in images (of two views) per
second over all workers, and medians of the ratios within a round. The data is that of PRETEXTFLOW_TEST_DATA (by
default ../shared/data beside the checkout). albumentations gets an environment of its own in the cache folder.

- small: 32 px, one worker on one core.
- photographs: views of 224 px from JPEG files, one worker on each of two cores. We decode to the stored size, 256 px,
  and cut views out of that; the others decode the whole photograph and cut views out of it.
- decoded: the same from photographs of 1024 px in memory, for all.
- stored: the same from photographs of 256 px in memory, for all: what each step of training does.
- inputs: the same as normalized float32, which is what a model takes.
- blurred: as stored, with SimCLR's blur of every second view.
- decoding: JPEG files to the stored size, alone and with two views after it.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("augment_worker.py")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretextflow" / "benchmarks"
NUM_SMALL = 2048


@dataclass(frozen=True)
class Contest:
    """Who works on what."""

    data: str
    sides: tuple[str, ...]
    workers: int
    size: int
    blur: float = 0.0
    inputs: bool = False


PEERS = ("ours", "torchvision", "torchvision_pillow", "albumentations")
CONTESTS = {
    "small": Contest("small", PEERS, 1, 32),
    "photographs": Contest("files", ("ours_files", "torchvision_files", "albumentations_files"), 2, 224),
    "decoded": Contest("decoded", PEERS, 2, 224),
    "stored": Contest("stored", PEERS, 2, 224),
    "inputs": Contest("stored", PEERS, 2, 224, inputs=True),
    "blurred": Contest("stored", PEERS, 2, 224, blur=0.5),
    "decoding": Contest("files", ("decode", "decode_and_augment"), 2, 224),
}


def write_data(folder: Path) -> None:
    """`small`, `decoded`, `stored` and `files`, as .npz of one array an image."""
    source = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data")
    small: list[np.ndarray] = []
    with tarfile.open(source / "cifar10.tar.gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if stream is not None:
                small.append(np.asarray(Image.open(stream).convert("RGB")))
            if len(small) == NUM_SMALL:
                break
    with tarfile.open(source / "photos.tar") as archive:
        streams = [archive.extractfile(member) for member in archive if member.name.endswith(".jpg")]
        files = [stream.read() for stream in streams if stream is not None]
    photos = [ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    fitted = {
        name: [np.asarray(ImageOps.fit(photo, (side, side), Image.Resampling.BICUBIC)) for photo in photos]
        for name, side in (("decoded", 1024), ("stored", 256))
    }
    raw = [np.frombuffer(data, np.uint8) for data in files]
    for name, arrays in {"small": small, "files": raw, **fitted}.items():
        np.savez(folder / f"{name}.npz", *arrays)


def interpreter(side: str) -> str:
    """The Python that has the side's library; makes an environment for albumentations once."""
    if not side.startswith("albumentations"):
        return sys.executable
    folder = CACHE / "albumentations-2.0.8"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "albumentations==2.0.8"], check=True)
        (folder / "ready").touch()
    return str(python)


def start(contest: Contest, side: str, folder: Path) -> list[subprocess.Popen[str]]:
    """The side's workers, one on each core."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
    workers = []
    for core in sorted(os.sched_getaffinity(0))[: contest.workers]:
        options = [
            str(folder / f"{contest.data}.npz"),
            str(core),
            str(contest.size),
            str(contest.blur),
            str(int(contest.inputs)),
        ]
        command = [interpreter(side), str(WORKER), side, *options]
        workers.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    return workers


def rate(workers: list[subprocess.Popen[str]], seconds: float) -> float:
    """Images per second of all workers together, at work at the same time."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{seconds}\n")
        worker.stdin.flush()
    return sum(float(worker.stdout.readline()) for worker in workers if worker.stdout is not None)


def hold(contest: Contest, folder: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Medians of rates and, of the first side to each other, of ratios."""
    sides = {side: start(contest, side, folder) for side in contest.sides}
    try:
        for workers in sides.values():
            rate(workers, 0.1)  # until all have loaded, so that none is at work in another's turn
        table = [{side: rate(workers, seconds) for side, workers in sides.items()} for _ in range(rounds)]
    finally:
        for workers in sides.values():
            for worker in workers:
                worker.kill()
                worker.communicate()
    first, *others = contest.sides
    found = {side: statistics.median(row[side] for row in table) for side in contest.sides}
    if first == "decode":
        share = statistics.median(row["decode_and_augment"] / row["decode"] for row in table)
        return {**found, "share_of_decode": round(share, 3)}
    ratios = {f"{first}_to_{side}": statistics.median(row[first] / row[side] for row in table) for side in others}
    return {side: round(value, 1) for side, value in found.items()} | {k: round(v, 2) for k, v in ratios.items()}


def main(rounds: int = 5, seconds: float = 2.0) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        figures = {name: hold(contest, folder, rounds, seconds) for name, contest in CONTESTS.items()}
    print(json.dumps({"cores": os.cpu_count(), "rounds": rounds, "seconds": seconds, **figures}, indent=1))


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, float), sys.argv[1:], strict=False)))
