"""The training loop of one rank. Knows nothing of Ray: batches come from an iterator, state goes to the store.

Way of a step: feed -> to_batch -> forward (loss) -> backward (DDP averages) -> clip -> optimizer -> method's
own after_step -> moving average -> history, health, checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from ssl_tasks.errors import StageError
from ssl_tasks.methods.base import CONSTANT_RATE, Batch
from ssl_tasks.training import optim, sharding
from ssl_tasks.training.checkpoints import Checkpoints, State
from ssl_tasks.training.choice import calibrate
from ssl_tasks.training.health import Watchdog
from ssl_tasks.training.job import Job
from ssl_tasks.training.probe import embed_rows, probe
from ssl_tasks.training.scalars import Scalars
from ssl_tasks.training.setup import Ranks, as_input, build_method, place, wrap
from ssl_tasks.training.timing import (
    AUGMENT,
    CHECKPOINT,
    COMMUNICATION,
    COMPUTE,
    EXCHANGE,
    FEED,
    HEALTH,
    TRANSFER,
    VIEWS,
    Clock,
    LastGradient,
)
from ssl_tasks.training.trace import Trace
from ssl_tasks.training.views import to_batch

Feed = Callable[[int, int], Iterator[dict[str, np.ndarray]]]
"""feed(first step, one past the last) gives the arrays of `make_views` for each step, in order."""

TELL_SECONDS = 1.0
"""Progress is told at most so often."""
PROJECTION_STD = "projection_std"
"""What a method's `forward` calls the spread of its projections (`heads.projection_std`)."""

Report = Callable[[dict[str, Any]], None]


class Trainer:
    """All that changes while training, on one rank."""

    def __init__(self, job: Job, ranks: Ranks) -> None:
        config = job.config
        self.job, self.ranks, self.config = job, ranks, config
        self.stats = job.stats
        self.step = 0
        self.health: dict[str, list[float]] = {}
        self.watchdog = Watchdog()
        self.scalars = Scalars(ranks, self.watchdog.check_loss)
        self.clock = Clock()
        self.trace: Trace | None = None
        self.resumed_at: int | None = None
        self.checkpoints = Checkpoints(job.out.store, job.partial, config.keep_checkpoints)
        method, self.random_weights = build_method(job)
        self.choice = self._choose(method)
        self.method = place(method, ranks, self.choice["layout"], config)
        self.is_sharded = config.sharding != "none" and ranks.world > 1
        if self.is_sharded:
            sharding.shard(self.method, ranks.device)
            self.call: Any = self.method
        else:
            self.call = wrap(self.method, ranks, self.choice["compiled"], config.sync_batch_norm)
        several = ranks.world > 1 and ranks.device.type == "cpu" and not self.choice["compiled"] and not self.is_sharded
        self.last_gradient = LastGradient(self.method) if several else None
        self.optimizers = {
            phase: optim.build_optimizer(self.method.param_groups(phase), config.optimizer)
            for phase in self.method.phases
        }
        self.ema = optim.Ema(self.method.backbone, config.ema_decay) if config.ema_decay > 0 else None

    @property
    def history(self) -> dict[str, list[float]]:
        """What every step so far has logged, a list a name."""
        return self.scalars.rows

    def _choose(self, method: Any) -> dict[str, Any]:
        """Calibrate once: the choice is saved before step 0 and used again on resume."""
        store, path = self.job.out.store, f"{self.job.partial}/choice.json"
        if self.config.sharding != "none":  # leaves nothing to choose, and an earlier choice is for whole weights
            return asdict(calibrate(self.job, method, self.ranks, self._autocast))
        choice = self._from_rank_0(store.read_json(path))
        if choice is None:  # all ranks time the same steps: a loss that gathers rows needs them all
            choice = self._from_rank_0(asdict(calibrate(self.job, method, self.ranks, self._autocast)))
            if self.ranks.rank == 0:
                store.write_json(path, choice)
        result: dict[str, Any] = choice
        return result

    def _from_rank_0(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        if self.ranks.world == 1:
            return value
        shared = [value]
        distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "bf16":
            return torch.autocast(self.ranks.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def run(self, feed: Feed, report: Report) -> None:
        """Train to the job's last step, from the newest checkpoint where there is one.

        Args:
            report: told about progress on rank 0, at most once in `TELL_SECONDS`.

        Raises:
            StageError: on every rank, when the loss is no number or the features have collapsed.
        """
        self._resume()
        job, end = self.job, self.job.last_step
        checks = set(job.health_steps)
        batches = feed(self.step, end)
        first, began, told, waited = self.step, time.monotonic(), 0.0, 0.0
        if self.config.profile_steps and self.ranks.rank == 0 and first < end:
            self.trace = Trace(self.config.profile_steps, first, end, self.ranks.device.type)
        while self.step < end:
            if self.trace is not None:
                self.trace.before_step(self.step)
            if self.step % job.plan.steps_per_epoch == 0:
                with self.clock(COMPUTE, {COMMUNICATION: EXCHANGE}):
                    self.method.before_epoch(lambda: self._embed_all(report))
            with self.clock(FEED):
                made = next(batches)
            self.clock.beside(made.pop("feed_seconds", (0.0, 0.0)))
            with self.clock(TRANSFER, {AUGMENT: VIEWS}):
                whole = to_batch(made, self.job, self.stats, self.ranks.device)
            with self.clock(COMPUTE, {COMMUNICATION: EXCHANGE}):
                self._step(whole)
            if self.step in checks:
                with self.clock(HEALTH):
                    self._check_health()
            if self.step % self.config.checkpoint_every_steps == 0 or self.step == end:
                with self.clock(CHECKPOINT):
                    self._save()
            self.clock.lap(self.step - 1)
            if self.trace is not None:
                self.trace.after_step(self.step - 1)
            now = time.monotonic()
            known = self.scalars.known.get("loss")
            if known and (now - told > TELL_SECONDS or self.step == end):
                rate = (self.step - first) * self.config.batch_size / max(1e-9, now - began)
                wait = (self.clock.seconds[FEED] - waited) / max(1e-9, now - (told or began))
                told, waited = now, self.clock.seconds[FEED]
                report({"step": self.step, "loss": known[-1], "rows_per_second": rate, "feed_wait": wait})
        with self.clock(CHECKPOINT):
            self.checkpoints.wait()
            if self.is_sharded:
                self._put_together()

    def _embed_all(self, report: Report) -> Tensor:
        """All train rows' features, and a word every second: many rows take longer than a step may."""
        positions, told = self.job.plan.positions, time.monotonic()

        def tell(num_rows: int) -> None:
            nonlocal told
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                report({"step": self.step, "note": f"embedding {num_rows:,} of {len(positions):,} rows"})

        return embed_rows(self, positions, tell)

    def _put_together(self) -> None:
        """Rank 0's method becomes a whole one, for what comes after training; all ranks at once."""
        state = sharding.gathered(self.method.state_dict(), keep=self.ranks.rank == 0)
        if self.ranks.rank == 0:
            method, _ = build_method(self.job)
            self.method = place(method, self.ranks, self.choice["layout"], self.config)
            self.method.load_state_dict(state)
            self.is_sharded = False

    def _step(self, whole: Batch) -> None:
        logged: dict[str, Tensor] = {}
        for phase, optimizer in self.optimizers.items():
            rate = self._set_rate(optimizer)
            optimizer.zero_grad(set_to_none=True)
            for number, part in enumerate(_parts(whole, self.config.accumulate)):
                last = number == self.config.accumulate - 1
                with contextlib.nullcontext() if last else self._no_sync():
                    self._backward(part, phase, logged, last)
            moved = [weight for group in optimizer.param_groups for weight in group["params"]]
            norm = optim.clip(moved, self.config.optimizer.clip_norm)
            optimizer.step()
            logged[_named("grad_norm", phase)] = norm.detach()
        self.method.after_step((self.step + 1) / self.job.total_steps)
        if self.ema is not None:
            self.ema.update(self.method.backbone, self.step)
        # of several phases the sum: `loss` is what a run is watched by
        logged.setdefault("loss", torch.stack([logged[_named("loss", phase)] for phase in self.optimizers]).sum())
        self.scalars.add(self.step, rate, logged)
        self.step += 1

    def _backward(self, part: Batch, phase: str, logged: dict[str, Tensor], last: bool) -> None:
        batch = as_input(part, self.choice["layout"], self.config.precision)
        with self._autocast():
            results = self.call(batch, phase)
        share = 1 / self.config.accumulate
        with self.last_gradient() if last and self.last_gradient else contextlib.nullcontext():
            (results["loss"] * share).backward()
        for name, value in results.items():
            key = _named(name, phase)
            logged[key] = logged.get(key, torch.zeros((), device=value.device)) + value.detach().double() * share

    def _no_sync(self) -> contextlib.AbstractContextManager[Any]:
        if self.is_sharded:
            return sharding.no_sync(self.method)
        context: contextlib.AbstractContextManager[Any] = getattr(self.call, "no_sync", contextlib.nullcontext)()
        return context

    def _set_rate(self, optimizer: torch.optim.Optimizer) -> float:
        total, config = self.job.total_steps, self.config.optimizer
        warmup = round(config.warmup_fraction * total)
        rate = optim.lr_at(self.step, total, warmup, config.lr, config.final_fraction)
        constant = optim.lr_at(min(self.step, warmup), total, warmup, config.lr)
        for group in optimizer.param_groups:
            own = config.bias_rate if all(weight.ndim < 2 for weight in group["params"]) else 1.0
            group["lr"] = own * (constant if group.get(CONSTANT_RATE) else rate)
            if group["weight_decay"] > 0 and config.final_weight_decay is not None:
                group["weight_decay"] = optim.decay_at(self.step, total, config.weight_decay, config.final_weight_decay)
        return rate

    def _check_health(self) -> None:
        """Measured on rank 0; the verdict goes to all, so that all stop or none."""
        message: str | None = None
        history = self.history  # on all ranks: a loss that is no number ends them all, and says more than features do
        found = probe(self) if self.ranks.rank == 0 or self.is_sharded else {}
        if self.ranks.rank == 0:
            row = {"step": float(self.step), **found}
            for name, value in row.items():
                self.health.setdefault(name, []).append(value)
            try:
                self.watchdog.check_features(self.step, row["feature_std"], row["rankme"])
                if PROJECTION_STD in history:
                    self.watchdog.check_projections(self.step, history[PROJECTION_STD][-1])
            except StageError as error:
                message = str(error)
        message = self._from_rank_0(message)
        if message is not None:
            raise StageError(message)

    def _save(self) -> None:
        self.scalars.read()  # on all ranks, so that none goes on without one whose loss is no number
        if self.ranks.rank == 0 or self.is_sharded:
            state = sharding.gathered(self.state(), keep=self.ranks.rank == 0)
        if self.ranks.rank == 0:
            self.checkpoints.save(self.step, state)

    def state(self) -> State:
        """All that a later process needs to go on as if it had never stopped."""
        return {
            "step": self.step,
            "method": self.method.state_dict(),
            "optimizers": {phase: optimizer.state_dict() for phase, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict() if self.ema else {},
            "history": self.history,
            "health": self.health,
            "num_bad": self.watchdog.num_bad,
            "num_bad_projections": self.watchdog.num_bad_projections,
        }

    def _resume(self) -> None:
        state = self.checkpoints.load()
        if state is None:
            return
        sharding.load(self.method, state["method"])
        for phase, optimizer in self.optimizers.items():
            sharding.load_optimizer(optimizer, state["optimizers"][phase])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.step = self.resumed_at = state["step"]
        self.scalars.rows, self.health = state["history"], state["health"]
        self.watchdog.num_bad = state["num_bad"]
        self.watchdog.num_bad_projections = state.get("num_bad_projections", 0)  # older checkpoints have none


def _named(name: str, phase: str) -> str:
    return name if phase == "main" else f"{phase}_{name}"


def _parts(batch: Batch, count: int) -> list[Batch]:
    if count == 1:
        return [batch]
    views = [view.chunk(count) for view in batch.views]
    positions, keys = batch.positions.chunk(count), batch.keys.chunk(count)
    texts = [None] * count if batch.text is None else batch.text.chunk(count)
    return [Batch([view[i] for view in views], positions[i], keys[i], texts[i]) for i in range(count)]
