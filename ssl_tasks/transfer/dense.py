"""Heads on a feature map, for tasks that say where things are: what each of them predicts, and how it learns to.

The map is that of a frozen encoder, or of raw input, and only a linear head on it is trained; from scratch a network
and the same head are. Views are not augmented: a mask would have to move with its image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ssl_tasks.transfer.base import FloatArray, IntArray, Prediction, Task
from ssl_tasks.transfer.feature_maps import feature_map, trunk
from ssl_tasks.transfer.located import intersection_over_union
from ssl_tasks.transfer.networks.heads import linear
from ssl_tasks.transfer.networks.training import Schedule, Start, Training, train
from ssl_tasks.transfer.segmented import IGNORED, counts
from ssl_tasks.transfer.targets import SEGMENTATION

if TYPE_CHECKING:
    from torch import Tensor, nn

EXAMPLES = 6
"""Test rows whose predicted masks are kept to be looked at."""
GRID = 7
"""Places a side, at most, of the map that a box is read from."""
ROWS = 64
Shape = tuple[int, int, int]


class Target(Protocol):
    """What a dense task predicts."""

    @property
    def fact(self) -> str:
        """What `fitted` is called."""
        ...

    def head(self, shape: Shape) -> nn.Module:
        """From a map (B, C, h, w) of `shape`, linearly; it gives 0 for everything at first."""
        ...

    def wanted(self) -> NDArray[Any]:
        """(n, ...) what `loss` compares with, of the labelled train rows."""
        ...

    def loss(self, network: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
        """A scalar."""
        ...

    def said(self, outputs: Tensor) -> NDArray[Any]:
        """(B, ...) predictions in the form of the task's labels."""
        ...

    def scores(self, truth: NDArray[Any], said: NDArray[Any]) -> FloatArray:
        """(B, M) what the task's metrics are made of."""
        ...

    def fitted(self, scores: FloatArray, truth: NDArray[Any]) -> float:
        """Share of its own labelled rows that a fit gets right."""
        ...


@dataclass(frozen=True)
class Masks:
    """A class for each pixel: a 1 x 1 convolution, upsampled bilinearly, and the cross-entropy of the known pixels."""

    labels: NDArray[np.uint8]
    """(n, H, W) of the labelled train rows."""
    num_classes: int
    fact: str = "train_pixel_accuracy"

    def head(self, shape: Shape) -> nn.Module:
        """(B, C, h, w) -> (B, K, h, w)."""
        from torch import nn

        conv: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, shape[0], self.num_classes, 1)  # type: ignore[no-untyped-call]  # as torch has it
        nn.init.zeros_(conv.weight)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return conv

    def wanted(self) -> NDArray[np.uint8]:
        """The masks."""
        return self.labels

    def loss(self, network: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
        """See `pixel_loss`."""
        return pixel_loss(network(inputs), wanted)

    def said(self, outputs: Tensor) -> NDArray[np.uint8]:
        """(B, H, W) the likeliest classes."""
        import torch

        found = upsampled(outputs, self.labels.shape[1:]).argmax(dim=1).to(torch.uint8)
        return found.cpu().numpy()

    def scores(self, truth: NDArray[Any], said: NDArray[Any]) -> FloatArray:
        """(B, 3 K), see `segmented.counts`."""
        return counts(truth, said, self.num_classes)

    def fitted(self, scores: FloatArray, truth: NDArray[Any]) -> float:
        """Share of the known pixels."""
        right, true, _ = np.split(scores, 3, axis=1)
        return float(right.sum() / max(true.sum(), 1.0))


@dataclass(frozen=True)
class Boxes:
    """Centre and size of a box: a linear layer on the map, averaged to at most `GRID` places a side, and smooth L1.

    As in Fast R-CNN (Girshick, arXiv 1504.08083, section 2.3) targets have mean 0 and deviation 1 over the labelled
    train rows, and the loss is its equation 3, summed over the four.
    """

    labels: FloatArray
    """(n, 4) x, y, width and height, as shares of the side."""
    fact: str = "train_iou_over_half"

    def head(self, shape: Shape) -> nn.Module:
        """(B, C, h, w) -> (B, 4)."""
        from torch import nn

        channels, *sides = shape
        grid = tuple(min(GRID, side) for side in sides)
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(grid), nn.Flatten(), linear(channels * grid[0] * grid[1], self.labels.shape[1])
        )

    def wanted(self) -> NDArray[np.float32]:
        """(n, 4) centre x and y, width and height, in deviations."""
        mean, deviation = self._scale()
        return ((centred(self.labels) - mean) / deviation).astype(np.float32)

    def _scale(self) -> tuple[FloatArray, FloatArray]:
        values = centred(self.labels)
        deviation = values.std(axis=0)
        return values.mean(axis=0), np.where(deviation > 0, deviation, 1.0)

    def loss(self, network: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
        """Smooth L1."""
        from torch.nn import functional as F

        return F.smooth_l1_loss(network(inputs), wanted, reduction="sum") / len(wanted)

    def said(self, outputs: Tensor) -> FloatArray:
        """(B, 4) as the labels have it; what lies outside is cut off."""
        mean, deviation = self._scale()
        centre, size = np.split(outputs.double().cpu().numpy() * deviation + mean, 2, axis=1)
        low, high = (centre - size / 2).clip(0, 1), (centre + size / 2).clip(0, 1)
        return np.concatenate([low, (high - low).clip(0)], axis=1)

    def scores(self, truth: NDArray[Any], said: NDArray[Any]) -> FloatArray:
        """The boxes themselves."""
        return said

    def fitted(self, scores: FloatArray, truth: NDArray[Any]) -> float:
        """Share of the boxes that are met by more than half."""
        return float((intersection_over_union(scores, truth) > 0.5).mean())


def centred(boxes_N4: FloatArray) -> FloatArray:
    """x, y, width and height to centre x and y, width and height."""
    low, size = np.split(boxes_N4, 2, axis=1)
    return np.concatenate([low + size / 2, size], axis=1)


def upsampled(logits: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(B, K, h, w) to (B, K, H, W), bilinearly between the centres of places."""
    from torch.nn import functional as F

    return F.interpolate(logits, size=sides, mode="bilinear", align_corners=False)


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels of a batch that are not `IGNORED`; 0 where all are.

    Args:
        logits: (B, K, h, w), upsampled to the masks.
        masks: (B, H, W) uint8.
    """
    from torch.nn import functional as F

    whole = F.cross_entropy(
        upsampled(logits, tuple(masks.shape[1:])), masks.long(), ignore_index=IGNORED, reduction="sum"
    )
    return whole / (masks != IGNORED).sum().clamp(min=1)


def target_of(task: Task) -> Target:
    """That of a fit."""
    return Masks(task.labels, task.num_classes) if task.task == SEGMENTATION else Boxes(task.labels)


def fit_head(task: Task) -> Prediction:
    """A linear head on the feature maps that the context holds."""
    import torch

    context = task.context
    assert context is not None and context.features is not None, "a head needs feature maps"  # noqa: PT018
    maps, device = context.features, context.payload(task.train[:1]).device
    reading = replace(
        context, payload=lambda positions: torch.from_numpy(maps[positions]).to(device), to_input=lambda inputs: inputs
    )
    options = context.options.dense
    schedule = Schedule(options.steps, options.batch_size, sorted(options.learning_rates), options.weight_decay)
    shape: Shape = maps[task.train[:1]].shape[1:]
    target = target_of(task)
    return _trained(replace(task, context=reading), schedule, target, lambda: target.head(shape))


def fit_scratch(task: Task) -> Prediction:
    """The encoder's architecture with fresh weights and the same head, as section `scratch` says, on plain images."""
    import torch
    from torch import nn

    context = task.context
    assert context is not None, "from_scratch needs a context"
    scratch, target = context.options.scratch, target_of(task)

    def network() -> nn.Module:
        backbone = context.build(task.seed)
        with torch.inference_mode():
            found = feature_map(backbone.eval(), context.to_input(context.payload(task.train[:1])).cpu())
        return nn.Sequential(trunk(backbone), target.head((found.shape[1], found.shape[2], found.shape[3])))

    return _trained(task, Schedule.of(scratch, scratch.steps), target, network)


def fit_majority(task: Task) -> Prediction:
    """The same for every image: the most frequent class everywhere, or the mean of the boxes."""
    target = target_of(task)
    if isinstance(target, Masks):
        pixels = np.bincount(task.labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
        said: NDArray[Any] = np.full((len(task.test), *task.labels.shape[1:]), pixels.argmax(), np.uint8)
    else:
        said = np.tile(task.labels.mean(axis=0), (len(task.test), 1))
    return _prediction(target, said, {})


def _trained(task: Task, schedule: Schedule, target: Target, network: Callable[[], nn.Module]) -> Prediction:
    assert task.context is not None
    task = replace(task, context=replace(task.context, augment=lambda payload, keys: payload))
    rows = task.train, target.wanted()

    def on_val(candidate: Training) -> tuple[float, ...]:
        return task.val_score(target.scores(task.val_labels, _said(target, candidate, task.val)))

    best = train(task, schedule, lambda: Start(network(), loss=target.loss, rows=rows), on_val)
    fitted = target.fitted(target.scores(task.labels, _said(target, best, task.train)), task.labels)
    return _prediction(target, _said(target, best, task.test), {"learning_rate": best.rate, target.fact: fitted})


def _said(target: Target, training: Training, positions: IntArray) -> NDArray[Any]:
    """Predictions for rows, some at a time: the likeliest classes are small, and what they are made of is not."""
    import torch

    parts = [
        target.said(torch.from_numpy(training.outputs(positions[at : at + ROWS], training.network)))
        for at in range(0, len(positions), ROWS)
    ]
    return np.concatenate(parts)


def _prediction(target: Target, said: NDArray[Any], chosen: dict[str, float]) -> Prediction:
    examples = said[:EXAMPLES] if isinstance(target, Masks) else None
    return Prediction(
        np.zeros((len(said), 0)), chosen, judged=lambda truth: target.scores(truth, said), examples=examples
    )
