"""Ray Train as it comes, for clusters of others and for GPUs."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer


class ClusterTrainer(TorchTrainer):  # type: ignore[misc]  # Ray is untyped
    """Ray's own, without its SIGINT handler, which is never taken down and may leave by `sys.exit(0)`."""

    def _register_sigint_handler(self, controller: Any) -> None:
        pass
