"""The scalars of every step, means over ranks. A GPU is not waited for: they are read while it makes the next step.

scalars = Scalars(ranks, watchdog.check_loss)
scalars.add(step, rate, {"loss": loss})
scalars.rows["loss"]                 # of every step so far; here it is waited for
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, distributed

from ssl_tasks.training.setup import Ranks
from ssl_tasks.training.timing import EXCHANGE


class Scalars:
    """What a training logs, a list a name."""

    def __init__(self, ranks: Ranks, check: Callable[[int, float], None]) -> None:
        """`check(step, loss)` is called for each step when it is read, and may end the training."""
        self._ranks, self._check = ranks, check
        self._later = reads_later(ranks.device)
        self.known: dict[str, list[float]] = {}
        """What has been read so far, which may lack the newest step."""
        self._unread: tuple[dict[str, float], list[str], Callable[[], list[float]]] | None = None

    @property
    def rows(self) -> dict[str, list[float]]:
        """Of every step so far: `step`, `lr` and what was logged; `read` before."""
        self.read()
        return self.known

    @rows.setter
    def rows(self, rows: dict[str, list[float]]) -> None:
        self.known, self._unread = rows, None

    def add(self, step: int, rate: float, logged: Mapping[str, Tensor]) -> None:
        """The () tensors of a step, of which `loss` is one. Means over ranks, so that all see the same NaN and stop."""
        names = sorted(logged)
        values = torch.stack([logged[name].double() for name in names])
        if self._ranks.world > 1:
            with EXCHANGE:
                distributed.all_reduce(values)
            values /= self._ranks.world
        arriving = _fetch(values)
        self.read()  # the step before, which is done by now
        self._unread = {"step": float(step), "lr": rate}, names, arriving
        if not self._later:
            self.read()

    def read(self) -> None:
        """Wait for the newest step; on all ranks or none, since it may end the training."""
        if self._unread is None:
            return
        (row, names, arriving), self._unread = self._unread, None
        row |= zip(names, arriving(), strict=True)
        for name, value in row.items():
            self.known.setdefault(name, []).append(value)
        self._check(int(row["step"]), row["loss"])


def reads_later(device: torch.device) -> bool:
    """Whether the device works on while this process prepares the next step."""
    return device.type == "cuda"


def _fetch(values: Tensor) -> Callable[[], list[float]]:
    """Starts moving (N,) values here; what it gives waits for them, and not for what the device does after them."""
    if values.device.type != "cuda":
        return values.tolist
    here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    here.copy_(values, non_blocking=True)
    moved = torch.cuda.Event()  # type: ignore[no-untyped-call]
    moved.record(torch.cuda.current_stream(values.device))

    def wait() -> list[float]:
        moved.synchronize()
        return here.tolist()

    return wait
