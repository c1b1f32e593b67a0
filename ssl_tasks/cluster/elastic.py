"""How many workers train, where the recipe gives a range: Ray Train's own elasticity, held to what this training needs.

Ray's policy counts the workers that the cluster's resources hold. That alone would give the feed's CPUs to workers,
which then wait for ever (ray#41603), and start numbers of workers that do not share the batch evenly; it would look at
nodes as they were up to 20 s ago, and wait 60 s for workers on a dead one; and it would grow in the middle of a
checkpoint interval, whose steps would be lost.

These are private names of Ray 2.60, which pyproject.toml pins.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision, ScalingDecision

from ssl_tasks.cluster import look
from ssl_tasks.cluster.nodes import Node
from ssl_tasks.cluster.room import largest
from ssl_tasks.cluster.starts import tell
from ssl_tasks.training.job import Job, checkpoint_steps

LOOK_SECONDS = 2.0
"""Between two looks for a new checkpoint, and for nodes while there are too few."""
TELL_SECONDS = 30.0
ANSWER_SECONDS = 5.0


class ElasticWorkers(ElasticScalingPolicy):  # type: ignore[misc]  # Ray is untyped
    """Starts with as many workers as there is room for, and changes their number after a failure or a checkpoint."""

    def __init__(self, scaling_config: Any, job: Job) -> None:
        super().__init__(scaling_config)
        self.job = job
        self.newest: int | None = None
        self.looked = self.told = float("-inf")

    def _get_num_workers_for_resource_request(self) -> int:
        """What fits with the feed now: Ray Data gets what is not reserved, and must get some."""
        return max(self.job.config.least_workers, self._usable(look.table(), self.scaling_config.max_workers))

    def _usable(self, nodes: Sequence[Node], reserved: int) -> int:
        return largest(nodes, self.job.config, use_gpu=bool(self.scaling_config.use_gpu), at_most=reserved)

    def _count_possible_workers(self, reserved_resources: dict[str, dict[str, float]]) -> int:
        alive = look.alive()
        on_live_nodes = {node: held for node, held in reserved_resources.items() if node in alive}
        return self._usable(look.table(), super()._count_possible_workers(on_live_nodes))

    def _get_reserved_resources(self) -> dict[str, dict[str, float]] | None:
        import ray

        try:
            asked = self._autoscaling_coordinator.get_reserved_resources.remote(self._requester_id, recompute=True)
            found: dict[str, dict[str, float]] = ray.get(asked, timeout=ANSWER_SECONDS)
        except Exception:  # as Ray's own: asked again, and nothing is resized until then
            return None
        return found

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Ray asks again at once: a controller that waits for nodes would keep a core busy."""
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, NoopDecision):
            self._tell()
            time.sleep(LOOK_SECONDS)
        return decision

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        """Fewer at once where there is no room for all; more just after a checkpoint, so that hardly a step is lost.

        Workers that were started while a node died, before Ray knew, find places on the others: those of the feed.
        """
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return NoopDecision()
        self.looked = time.monotonic()
        self._maybe_send_resource_request()
        held = self._usable(look.table(), worker_group_state.num_workers)
        if 0 < held < worker_group_state.num_workers:
            return self._get_resize_decision(held)
        newest = self._newest()
        if newest is None or newest == self.newest:
            return NoopDecision()
        self.newest = newest
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _newest(self) -> int | None:
        with contextlib.suppress(OSError):  # a store that is away for a moment must not end the training
            return max(checkpoint_steps(self.job.out.store, self.job.partial), default=0)
        return None

    def _tell(self) -> None:
        if time.monotonic() - self.told < TELL_SECONDS:
            return
        self.told = time.monotonic()
        tell(self.job, f"waiting for nodes that hold {self.job.config.least_workers} workers")
