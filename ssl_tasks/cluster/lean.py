"""Ray Train's own parts with fewer processes, for the local Ray on the CPU.

`TorchTrainer.fit()` needed 35 s here until the loop was entered: on two cores, seven processes (controller,
placement group cleaner, preemption watcher, autoscaling coordinator, synchronization, worker, ...) import Ray
Train and torch one after the other, and one 5 s request times out. With the controller in the driver, without
the helpers that a cluster of our own does not need, and with a backend that leaves torch to the workers, it
takes 5 s. The cleaner protects a shared cluster from a driver that dies; this one dies with its driver.

These are private names of Ray 2.60, which pyproject.toml pins.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from dataclasses import dataclass
from typing import Any, ClassVar

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

PROCESS_GROUP_TIMEOUT = datetime.timedelta(minutes=30)


class LeanTrainer(DataParallelTrainer):  # type: ignore[misc]  # Ray is untyped
    """A data-parallel trainer whose controller runs in the calling thread."""

    def _create_default_callbacks(self) -> list[Any]:
        return [c for c in super()._create_default_callbacks() if not isinstance(c, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        _DriverGroup.places.clear()
        controller = _DriverController(**{**settings, "scaling_policy": _FixedWorkers(self.scaling_config)})
        asyncio.run(controller.run())
        return controller.get_result()

    def let_go(self) -> None:
        """End the workers of a `fit` that was interrupted, and give their places back."""
        for place in _DriverGroup.places:
            place.shutdown()


class _FixedWorkers(FixedScalingPolicy):  # type: ignore[misc]  # Ray is untyped
    """Asks no autoscaler for resources: the local Ray declares what the workers need."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    async def before_controller_shutdown(self) -> None:
        pass

    def before_controller_abort(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class _DriverGroup(WorkerGroup):  # type: ignore[misc]  # Ray is untyped
    places: ClassVar[list[Any]] = []
    """Placement groups of this process's training: an interrupted controller forgets one that it waits for."""

    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> Any:
        self.places.append(super()._create_placement_group(scaling_config, worker_group_context))
        return self.places[-1]

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        return dict(custom_runtime_env or {})

    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, args: Any) -> None:
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,  # it is no actor here; only reported checkpoints would ask for it
                    **{name: values[rank] for name, values in args.items()},
                )
                for rank, worker in enumerate(workers)
            ]
        )


class _DriverController(TrainController):  # type: ignore[misc]  # Ray is untyped
    worker_group_cls = _DriverGroup


@dataclass
class GlooConfig(BackendConfig):  # type: ignore[misc]  # Ray is untyped
    """A gloo process group over the workers; none for one worker."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray asks for it."""
        return _GlooBackend


class _GlooBackend(Backend):  # type: ignore[misc]  # Ray is untyped
    def on_start(self, worker_group: Any, backend_config: GlooConfig) -> None:
        world = len(worker_group)
        if world == 1:
            return
        address, port = worker_group.execute_single(0, get_address_and_port)
        ray.get([worker_group.execute_single_async(rank, _join, address, port, rank, world) for rank in range(world)])


def _join(address: str, port: int, rank: int, world: int) -> None:
    from torch import distributed

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    if distributed.is_initialized():  # a worker that Ray Train starts again after a failure of another
        distributed.destroy_process_group()
    distributed.init_process_group("gloo", rank=rank, world_size=world, timeout=PROCESS_GROUP_TIMEOUT)
