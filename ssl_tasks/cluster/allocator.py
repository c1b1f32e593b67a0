"""What glibc's allocator is told in the processes that train on CPUs.

Ray Train's loop runs in a thread, whose arena holds blocks of 64 MiB at most: larger activations would be mapped anew,
page by page, in every step, which took a quarter of the time at 224 px (tests/benchmarks/README.md). With one arena,
nothing mapped and nothing given back, they lie where those of the step before lay, and the process keeps its peak.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Read when a process starts; see mallopt(3)."""


@contextlib.contextmanager
def children_keep_memory() -> Iterator[None]:
    """What starts in the block, and all that it starts later, keeps its memory; what the user has set stays."""
    ours = {name: value for name, value in KEEP_MEMORY.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
