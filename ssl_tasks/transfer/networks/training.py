"""The loop of every strategy that trains a network: fixed steps, of AdamW under a cosine where nothing else is said,
its rate chosen on val.

Batches are views by the recipe's augmentation policy. Every candidate takes the first quarter of the steps, and the
best one goes on.

    trained = train(task, schedule, lambda: Start(network))
    trained.scores(task.test)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer import kinds
from ssl_tasks.transfer.base import FloatArray, IntArray, Prediction, Task
from ssl_tasks.transfer.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ssl_tasks.transfer.networks.adamw import AdamW
    from ssl_tasks.transfer.networks.sgd import Sgd
    from ssl_tasks.transfer.options import ScratchConfig, TuneConfig

PROBE_SHARE = 0.25
EVAL_ROWS = 512
Loss = Callable[["nn.Module", "Tensor", "Tensor"], "Tensor"]
"""Of a network, its input (B, ...) and labels (B,), -1 where there is none, to a scalar."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    steps: int
    batch_size: int
    learning_rates: Sequence[float]
    weight_decay: float
    momentum: float | None = None
    """Of SGD under `annealed`, where it is given, instead of AdamW under a cosine."""

    @classmethod
    def of(cls, config: ScratchConfig | TuneConfig, steps: int) -> Schedule:
        """That of a recipe's section."""
        return cls(steps, config.batch_size, sorted(config.learning_rates), config.weight_decay)

    def share(self, step: int) -> float:
        """Of the learning rate, at a step."""
        progress = step / self.steps
        return 0.5 * (1.0 + math.cos(math.pi * progress)) if self.momentum is None else annealed(progress)


def annealed(progress: float) -> float:
    """1 / (1 + 10 p)^0.75, as Ganin et al., "Domain-Adversarial Training of Neural Networks", section 5.2.2."""
    return float((1.0 + 10.0 * progress) ** -0.75)


@dataclass(frozen=True)
class Start:
    """What training begins with. Parameters that need no gradient stay; batch norms among them stay in eval mode."""

    network: nn.Module
    """Input to logits (B, K), or to what `loss` makes something of."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Share of the learning rate by a parameter's name; 1 for others."""
    before_step: Callable[[int], None] | None = None
    """Told the number of the step that comes; may freeze and thaw parameters that needed a gradient at first."""
    loss: Loss | None = None
    """Where it is not the one that fits the task (`outputs.Outputs.loss`)."""
    rows: tuple[IntArray, NDArray[Any]] | None = None
    """Positions, and what `loss` takes for their labels (-1: none), where they are not the task's."""
    target: IntArray | None = None
    """Positions of which a batch has as many rows again, after the others and with the label -1. Where there are fewer,
    some stand in it more than once."""


Merit = Callable[["Training"], tuple[float, ...]]


def train(task: Task, schedule: Schedule, start: Callable[[], Start], merit: Merit | None = None) -> Training:
    """The training of the best learning rate, at its end.

    Args:
        start: called once for each candidate; must give equal networks.
        merit: what the best candidate has most of, the metric on val where it is not given.
    """
    rates = list(schedule.learning_rates)
    if len(rates) == 1 or not len(task.val_labels):
        best = Training(task, schedule, start(), rates[len(rates) // 2])
    else:
        candidates = [Training(task, schedule, start(), rate) for rate in rates]
        for candidate in candidates:
            candidate.run(max(1, math.ceil(PROBE_SHARE * schedule.steps)))
        best = max(candidates, key=lambda candidate: (*(merit or _on_val)(candidate), -candidate.rate))
    best.run(schedule.steps)
    return best


def predict(task: Task, trained: Training, **chosen: float) -> Prediction:
    """What a trained classifier says of the test rows.

    Returns:
        The scores, with the learning rate and the share of its labelled rows that the network got right at the
        end (of numbers R2): well below 1 says that the steps were too few.
    """
    fitted = kinds.of(task.task).fitted(task.labels, trained.scores(task.train))
    facts = {"learning_rate": trained.rate, **fitted}
    return Prediction(trained.scores(task.test), facts | chosen)


def _on_val(candidate: Training) -> tuple[float, ...]:
    return candidate.task.val_score(candidate.scores(candidate.task.val))


class Training:
    """One network on its way: `run(step)` brings it there."""

    def __init__(self, task: Task, schedule: Schedule, start: Start, rate: float) -> None:
        import torch

        from ssl_tasks.transfer.networks.adamw import AdamW
        from ssl_tasks.transfer.networks.sgd import Sgd

        assert task.context is not None, "training needs a context"
        self.task, self.context, self.schedule, self.start, self.rate, self.step = (
            task, task.context, schedule, start, rate, 0
        )  # fmt: skip
        self.meaning = Outputs.of(task)
        positions, labels = start.rows or (task.train, self.meaning.targets(task.labels))
        self.positions, self.labels = torch.from_numpy(positions), torch.from_numpy(labels)
        self.loss = start.loss or self.meaning.loss
        device = self.context.payload(task.train[:1]).device
        # channels_last takes two thirds of the time for small convolutional networks on a CPU
        self.network = start.network.to(device).to(memory_format=torch.channels_last)
        named = dict(self.network.named_parameters())
        self.optimizer: AdamW | Sgd
        if schedule.momentum is None:
            scales = [start.scales.get(name, 1.0) for name in named]
            self.optimizer = AdamW(named.values(), schedule.weight_decay, scales)
        else:
            assert not start.scales, "SGD has one rate for all"
            self.optimizer = Sgd(named.values(), schedule.weight_decay, schedule.momentum)

    def run(self, until: int) -> None:
        """Take the steps from where it stands to `until`."""
        from ssl_tasks.randomness import row_keys

        while self.step < until:
            if self.start.before_step:
                self.start.before_step(self.step)
            train_mode(self.network)
            positions, labels = self._batch(self.step)
            payload = self.context.payload(positions.numpy())
            keys = row_keys(self.task.seed, self.step, positions).to(payload.device)
            inputs = self._input(self.context.augment(payload, keys))
            self.loss(self.network, inputs, labels.to(payload.device)).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            self.optimizer.step(self.rate * self.schedule.share(self.step))
            self.step += 1

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Positions and labels of a step's rows."""
        import torch

        chosen = self._indices(self.positions, step, min(self.schedule.batch_size, len(self.positions)))
        positions, labels = self.positions[chosen], self.labels[chosen]
        if self.start.target is None:
            return positions, labels
        target = torch.from_numpy(self.start.target)
        other = target[self._indices(target, step, len(positions))]
        return torch.cat([positions, other]), torch.cat([labels, torch.full_like(other, -1)])

    def _indices(self, positions: Tensor, step: int, size: int) -> Tensor:
        """Of a step's `size` rows: a new order every epoch, without the short batch at its end; several where one is
        shorter than a batch."""
        import torch

        rows = len(positions)
        if size > rows:
            epochs = -(-size // rows)
            orders = [self._order(positions, step * epochs + epoch) for epoch in range(epochs)]
            return torch.cat(orders)[:size]
        epoch, place = divmod(step, rows // size)
        return self._order(positions, epoch)[place * size : (place + 1) * size]

    def _order(self, positions: Tensor, epoch: int) -> Tensor:
        from ssl_tasks.randomness import bits, row_keys

        return bits(row_keys(self.task.seed, epoch, positions), "scratch order", 1)[:, 0].argsort(stable=True)

    def scores(self, positions: IntArray) -> FloatArray:
        """(N, K) class probabilities, or (N, 1) numbers, of unaugmented rows."""
        import torch

        return self.meaning.scores(torch.from_numpy(self.outputs(positions, self.network))).numpy()

    def outputs(self, positions: IntArray, part: nn.Module) -> FloatArray:
        """(N, ...) what `part` of the network gives for unaugmented rows."""
        import torch

        self.network.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(positions), EVAL_ROWS):
                inputs = self.inputs(positions[start : start + EVAL_ROWS])
                parts.append(part(inputs).double().cpu().numpy())
        return np.concatenate(parts)

    def inputs(self, positions: IntArray) -> Tensor:
        """What the network takes of unaugmented rows."""
        return self._input(self.context.payload(positions))

    def _input(self, payload: Tensor) -> Tensor:
        import torch

        inputs = self.context.to_input(payload)
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def train_mode(network: nn.Module) -> None:
    """Train mode, but eval for batch norms with frozen parameters: what is frozen keeps its statistics too."""
    from torch.nn.modules.batchnorm import _BatchNorm

    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm) and any(not weight.requires_grad for weight in module.parameters()):
            module.eval()
