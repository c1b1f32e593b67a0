"""Checkpoints in the store: written beside training, committed by a marker, a bounded number kept.

partial/<fingerprint>/step-00000200.pt      the state
partial/<fingerprint>/step-00000200.json    written after it, with its checksum: the checkpoint exists
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import threading
from typing import Any

import torch
from torch import Tensor

from ssl_tasks.store import Store
from ssl_tasks.training.job import checkpoint_steps

State = dict[str, Any]


class Checkpoints:
    """Saves and finds training state. One process of a run saves, all may load."""

    def __init__(self, store: Store, folder: str, keep: int) -> None:
        self.store, self.folder, self.keep = store, folder, keep
        self._writer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: State) -> None:
        """Copy the state now and write it in the background; waits only for an earlier write to end.

        Raises:
            OSError: an earlier write failed.
        """
        self.wait()
        snapshot = _to_cpu(state)
        self._writer = threading.Thread(target=self._write, args=(step, snapshot), name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises:
            OSError: the write failed.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def load(self) -> State | None:
        """The newest whole state, on the CPU; one that is cut short or damaged is passed over."""
        for step in reversed(checkpoint_steps(self.store, self.folder)):
            marker = self.store.read_json(self._name(step, "json"))
            data = self.store.read_bytes(self._name(step, "pt"))
            if marker and data is not None and hashlib.sha256(data).hexdigest() == marker.get("sha256"):
                state: State = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
                return state
        return None

    def _name(self, step: int, suffix: str) -> str:
        return f"{self.folder}/step-{step:08d}.{suffix}"

    def _write(self, step: int, state: State) -> None:
        try:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            data = buffer.getvalue()
            self.store.write_bytes(self._name(step, "pt"), data)
            self.store.write_json(self._name(step, "json"), {"sha256": hashlib.sha256(data).hexdigest()})
            for old in checkpoint_steps(self.store, self.folder)[: -self.keep]:
                with contextlib.suppress(FileNotFoundError):
                    self.store.delete(self._name(old, "json"))  # first, so that no marker is left without its state
                    self.store.delete(self._name(old, "pt"))
        except BaseException as error:  # handed to the training thread by `wait`
            self._error = error


def _to_cpu(value: Any) -> Any:
    """A deep copy that later steps do not change, with tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_cpu(item) for item in value)
    return copy.copy(value)
