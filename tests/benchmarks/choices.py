"""What precision, memory layout, compilation and threads give to a step of SimCLR on this CPU. Prints a table and JSON.

    python tests/benchmarks/choices.py [small|photographs] [ROUNDS]        # small, 2

Steps on one batch that lies ready, without feed and Ray; the networks and batches are those of pretraining.py. Each
cell is the better of ROUNDS processes, which take turns. `bf16` is autocast; `bf16 weights` keeps fp32 masters for the
optimizer. At the end, in milliseconds, what the parts of the network take of the forward pass, and AdamW.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pretraining import CONTESTS

STEPS, WARM_UP = 11, 3
PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"autocast": True},
    "bf16 weights": {"weights": "bfloat16"},
}
LAYOUTS = ("contiguous", "channels_last")
PARTS = "parts"


def measure(task: dict[str, Any]) -> Any:
    """One cell, in this process; or the parts of a step."""
    import torch
    from pretraining_ours import stepped

    torch.set_num_threads(task["threads"])
    if task["precision"] == PARTS:
        return parts(task)
    options = {**PRECISIONS[task["precision"]], "compiled": task["compiled"]}
    return round(stepped(task, task["layout"], **options), 1)


def parts(task: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a whole step's forward by the network's parts, both views, and of AdamW by implementation."""
    import torch

    from ssl_tasks.backbones import build_backbone

    shape = (3, task["size"], task["size"])
    backbone = build_backbone(
        task["backbone"], modality="image", input_shape=shape, stem="standard", pool="network", seed=0, view_sides={}
    ).to(memory_format=torch.channels_last)
    taken: dict[str, list[float]] = {}
    began: dict[str, float] = {}
    for name, part in largest_children(backbone):
        part.register_forward_pre_hook(lambda *_, name=name: began.update({name: time.perf_counter()}))
        part.register_forward_hook(
            lambda *_, name=name: taken.setdefault(name, []).append(time.perf_counter() - began[name])
        )
    views = torch.randn(2 * task["batch_size"], *shape).contiguous(memory_format=torch.channels_last)
    for _ in range(STEPS):
        backbone(views).sum().backward()
    found: dict[str, Any] = {"forward": {name: milliseconds(times) for name, times in taken.items()}}
    weights = [weight for weight in backbone.parameters() if weight.grad is not None]
    options: dict[str, dict[str, Any]] = {
        "plain": {"foreach": False},
        "foreach": {"foreach": True},
        "fused": {"fused": True},
    }
    for name, option in options.items():
        optimizer, times = torch.optim.AdamW(weights, lr=0.0, **option), []
        for _ in range(STEPS):
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
        found.setdefault("adamw", {})[name] = milliseconds(times)
    return found


def largest_children(module: Any) -> list[tuple[str, Any]]:
    """The children of the first module that has more than two."""
    children = list(module.named_children())
    return children if len(children) > 2 else largest_children(children[0][1])


def milliseconds(seconds: list[float]) -> float:
    """Median."""
    return round(1000 * statistics.median(seconds), 2)


def in_child(task: dict[str, Any]) -> Any:
    """The same in a process of its own; none where that ends badly or takes two minutes."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, __file__, "--measure", json.dumps(task)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def main(name: str = "small", rounds: int = 2) -> None:
    """Measure and print."""
    cores = os.cpu_count() or 1
    cells: dict[tuple[str, str, bool, int], list[float]] = {}
    for _ in range(rounds):
        for precision, layout, compiled, threads in itertools.product(
            PRECISIONS, LAYOUTS, (False, True), sorted({1, cores})
        ):
            if threads < cores and (compiled or precision != "fp32"):
                continue  # what threads give is seen on the plain network
            task = {**CONTESTS[name], "steps": STEPS, "warm_up": WARM_UP}
            task |= {"precision": precision, "layout": layout, "compiled": compiled, "threads": threads}
            if (speed := in_child(task)) is not None:
                cells.setdefault((precision, layout, compiled, threads), []).append(speed)
            print(precision, layout, compiled, threads, speed, file=sys.stderr)
    print("| precision | layout | compiled | threads | images/s |\n| --- | --- | --- | --- | --- |")
    for (precision, layout, compiled, threads), speeds in cells.items():
        print(f"| {precision} | {layout} | {'yes' if compiled else 'no'} | {threads} | {max(speeds):.0f} |")
    found = [[*key, *speeds] for key, speeds in cells.items()]
    of_parts = in_child({**CONTESTS[name], "precision": PARTS, "threads": cores})
    print(json.dumps({"contest": name, "cores": cores, "images_per_second": found, "milliseconds": of_parts}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(json.loads(sys.argv[2]))))
    else:
        asked = sys.argv[1:] or ["small"]
        main(asked[0], *map(int, asked[1:]))
