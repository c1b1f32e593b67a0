"""Ray Train as it comes, for clusters of others and for GPUs."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from ssl_tasks.cluster.cleaner import CleanerCallback
from ssl_tasks.cluster.elastic import ElasticWorkers
from ssl_tasks.training.job import Job


class ClusterTrainer(TorchTrainer):  # type: ignore[misc]  # Ray is untyped
    """Ray's own with our cleaner, without its SIGINT handler, which is never taken down and may leave by `sys.exit(0)`.

    Where the number of workers is a range, `ElasticWorkers` decides on it.
    """

    def __init__(self, job: Job, **settings: Any) -> None:
        super().__init__(**settings)
        self.job = job

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [CleanerCallback() if isinstance(each, PlacementGroupCleanerCallback) else each for each in found]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            settings["scaling_policy"] = ElasticWorkers(self.scaling_config, self.job)
        return super()._initialize_and_run_controller(**settings)

    def _register_sigint_handler(self, controller: Any) -> None:
        pass

    def let_go(self) -> None:
        """Nothing is left to do: the controller is an actor, which goes with its handle, and the workers with it."""
