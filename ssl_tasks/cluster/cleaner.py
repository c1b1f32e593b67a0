"""Gives back what a training held on a cluster of others when its driver was killed, and then goes itself.

Ray Train's own cleaner asks the dashboard whether the controller lives, for ever where a cluster has none, and means to
leave by an exception in a thread of its own, which ends the thread and not the process. Each killed driver left one.

These are private names of Ray 2.60, which pyproject.toml pins.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import ray
import ray._private.state
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

LOOK_SECONDS = 1.0


class Cleaner:
    """A detached actor, which outlives the controller that it watches. Ray's callback calls its methods."""

    def __init__(self, controller: str) -> None:
        self.controller, self.itself = controller, ray.get_runtime_context().current_actor
        self.groups: list[Any] = []
        self.stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="cleaner").start()

    def register_placement_group(self, group: Any) -> None:
        """What to remove: one more after each failure, of which the earlier ones are gone."""
        self.groups.append(group)

    def stop(self) -> None:
        """The controller ends in order and removes the group itself."""
        self.stopped.set()
        ray.actor.exit_actor()

    def _watch(self) -> None:
        while not self.stopped.wait(LOOK_SECONDS):
            if self._is_dead():
                with contextlib.suppress(Exception):  # a head that is away: once more
                    for group in self.groups:
                        ray.util.remove_placement_group(group)
                    ray.kill(self.itself)

    def _is_dead(self) -> bool:
        try:
            found = ray._private.state.actors(self.controller)
        except Exception:  # a head that is away for a moment says nothing of the controller
            return False
        return not found or found["State"] == "DEAD"


class CleanerCallback(PlacementGroupCleanerCallback):  # type: ignore[misc]  # Ray is untyped
    """Ray Train's, with our cleaner."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """In the controller's process, before there are workers."""
        self._controller_actor_id = ray.get_runtime_context().get_actor_id()
        # on the head's node, as Ray's own: it must not keep an autoscaler from taking a worker's node away
        where = {"resources": {HEAD_NODE_RESOURCE_NAME: 0.001}, "scheduling_strategy": "DEFAULT"}
        actor = ray.remote(num_cpus=0)(Cleaner).options(lifetime="detached", **where)
        self._cleaner = actor.remote(self._controller_actor_id)
