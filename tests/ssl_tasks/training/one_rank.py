"""One rank of a gloo group, kept for a whole test session: `one_rank.py RANK WORLD FOLDER`.

Each line of standard input is `FILE<tab>FUNCTION`: a function of a test file, called without arguments inside
the group. The answer is a line with the path of what it returned. An exception ends the process.
"""

import importlib.util
import sys
from datetime import timedelta

import torch
from torch import distributed


def main(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/rendezvous", world)
    # a rank whose peer has failed waits for it no longer than this
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=100))
    for number, line in enumerate(sys.stdin):
        file, function = line.rstrip("\n").split("\t")
        spec = importlib.util.spec_from_file_location(f"asked_{number}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        path = f"{folder}/{number}-{rank}.pt"
        torch.save(getattr(module, function)(), path)
        print(path, flush=True)  # noqa: T201  # the answer
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
