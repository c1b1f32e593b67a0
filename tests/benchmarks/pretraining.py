"""How fast SimCLR pretrains from files, beside lightly-train 0.18 and a model fed from memory. Prints JSON.

    python tests/benchmarks/pretraining.py [small|photographs] [ROUNDS] [STEPS] [fp32|bf16]     # small, 3, 60, fp32

- small: resnet10t at 32 px, batch 256, the 50,000 JPEG files of CIFAR-10.
- photographs: resnet18 at 224 px, batch 64, 1,024 JPEG files: crops of 1,000 x 1,000 px or what there is of the 28
  photographs of photos.tar. We store them at 256 px once, which the seconds of `data_stages` say; the peer decodes the
  whole file in every epoch.

In each round the three sides run in turn, each in a process of its own: `ours` is the pretrain stage through Ray Train
and the feed; `memory` the same method, optimizer and memory layout, stepped on one batch of inputs that lies ready;
`peer` lightly_train.pretrain with the same backbone, heads, loss, optimizer and augmentations, in an environment of
its own in the cache folder. images/s count samples (two views each) after `warm_up` steps; ratios are medians over the
rounds. The data is that of PRETEXTFLOW_TEST_DATA (by default ../shared/data beside the checkout).
"""

from __future__ import annotations

import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pretextflow" / "benchmarks"
REQUIREMENTS = ("torch", "torchvision", "timm")
"""The peer gets our versions of these."""
CROP = 1000
NUM_CROPS = 1024
POLICY: dict[str, Any] = {
    "crop_scale": (0.2, 1.0),
    "flip_probability": 0.5,
    "jitter_probability": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "gray_probability": 0.2,
}
CONTESTS: dict[str, dict[str, Any]] = {
    "small": {"backbone": "resnet10t", "batch_size": 256, "stored": 32, "size": 32, "warm_up": 10},
    "photographs": {"backbone": "resnet18", "batch_size": 64, "stored": 256, "size": 224, "warm_up": 3},
}
SIDES = {"ours": "pretraining_ours.py", "memory": "pretraining_ours.py", "peer": "pretraining_peer.py"}


def run(side: str, python: Path, task: dict[str, Any]) -> dict[str, Any]:
    """One side in a process of its own; it answers as JSON in its last line."""
    command = [str(python), str(Path(__file__).with_name(SIDES[side])), json.dumps({**task, "side": side})]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def files(name: str, work: Path) -> None:
    """Make the folder of images, once."""
    if (work / "files").exists():
        return
    unpacking = work / "unpacking"
    if name == "small":
        with tarfile.open(DATA / "cifar10.tar.gz") as packed:
            packed.extractall(unpacking, filter="data")
        (unpacking / "cifar10" / "train").rename(work / "files")
        return
    from PIL import Image, ImageOps

    unpacking.mkdir(parents=True, exist_ok=True)
    with tarfile.open(DATA / "photos.tar") as packed:
        names = sorted(member.name for member in packed if member.name.lower().endswith((".jpg", ".jpeg", ".png")))
        photographs = [packed.extractfile(name).read() for name in names]  # type: ignore[union-attr]  # they are files
    for number, data in zip(range(NUM_CROPS), itertools.cycle(photographs), strict=False):
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        turn = number // len(photographs)
        left, top = (37 * turn % max(1, image.width - CROP), 53 * turn % max(1, image.height - CROP))
        image.crop((left, top, min(image.width, left + CROP), min(image.height, top + CROP))).save(
            unpacking / f"{number:04}.jpg", quality=90
        )
    unpacking.rename(work / "files")


def environment() -> Path:
    """The Python of the peer's environment."""
    import importlib.metadata

    python = CACHE / "lightly-train" / "bin" / "python"
    if not python.exists():
        venv.create(CACHE / "lightly-train", with_pip=True)
        same = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]
        command = [str(python), "-m", "pip", "install", "--quiet", *same, "lightly-train==0.18.*"]
        subprocess.run(command, check=True)
    return python


def main(name: str = "small", rounds: int = 3, steps: int = 60, precision: str = "fp32") -> None:
    """Run the sides in turn and print what they did."""
    python, work = environment(), CACHE / f"pretraining-{name}"
    work.mkdir(parents=True, exist_ok=True)
    files(name, work)
    contest = CONTESTS[name]
    task = {**contest, "work": str(work), "steps": contest["warm_up"] + steps, "policy": POLICY}
    task |= {"precision": precision, "pretrain": {"precision": precision}}
    answers: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    first = int(time.time())  # seeds of their own, so that no earlier call's artifact is found
    for number in range(rounds):
        for side, found in answers.items():
            found.append(
                run(side, python if side == "peer" else Path(sys.executable), {**task, "seed": first + number})
            )
        print(json.dumps({side: found[-1] for side, found in answers.items()}), file=sys.stderr)
    speeds = {side: [one["images_per_second"] for one in found] for side, found in answers.items()}
    print(
        json.dumps(
            {
                "contest": name,
                "precision": precision,
                "cores": os.cpu_count(),
                "rounds": rounds,
                "steps": steps,
                "images_per_second": {side: [round(value, 1) for value in values] for side, values in speeds.items()},
                "over_peer": ratio(speeds["ours"], speeds["peer"]),
                "over_memory": ratio(speeds["ours"], speeds["memory"]),
                "whole_seconds": {
                    side: [round(one["whole_seconds"], 1) for one in answers[side]] for side in ("ours", "peer")
                },
                "data_stages_seconds": round(answers["ours"][0]["data_stages_seconds"], 1),
                "choice": answers["ours"][0]["choice"],
            },
            indent=1,
        )
    )


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


if __name__ == "__main__":
    chosen, num_rounds, num_steps, in_precision = (*sys.argv[1:], *("small", "3", "60", "fp32")[len(sys.argv) - 1 :])
    main(chosen, int(num_rounds), int(num_steps), in_precision)
