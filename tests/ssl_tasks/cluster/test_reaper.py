"""What a local Ray leaves is ended; `sleep` stands in for its processes."""

import os
import subprocess
import time
from contextlib import ExitStack

from ssl_tasks.cluster.reaper import GRACE_SECONDS, VARIABLE, marked, reaper


def test_what_inherited_the_mark_ends_some_seconds_after_the_block() -> None:
    with ExitStack() as started:
        with reaper() as mark:
            given = {**os.environ, VARIABLE: mark}
            child, other = (
                started.enter_context(subprocess.Popen(["sleep", "60"], env=environment))
                for environment in (given, {**os.environ, VARIABLE: "another"})
            )
            assert marked(mark) == [child.pid]
        ended = time.monotonic()
        assert child.poll() is None
        assert child.wait(30) == -9
        assert time.monotonic() - ended > GRACE_SECONDS / 2
        assert other.poll() is None
        other.kill()
