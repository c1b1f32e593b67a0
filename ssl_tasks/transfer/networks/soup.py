"""Model soups: the mean of the weights of networks that were fine-tuned from one start.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time" (arXiv 2203.05482, section 2): ingredients are the encoder under every learning rate of section `tune`,
`soup.orders` times each, and likewise each further encoder of the same architecture. These began elsewhere, and what
lies between such networks need not work: the greedy soup leaves out what val says does not. Batch norms take their
statistics from train rows anew after averaging (Izmailov et al., arXiv 1803.05407, section 3.2), under
`transfer.domains` from those of the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ssl_tasks.errors import RequestError
from ssl_tasks.norms import sample, settle
from ssl_tasks.transfer.base import Blueprint, FloatArray, IntArray, Prediction, Task
from ssl_tasks.transfer.networks.heads import with_head
from ssl_tasks.transfer.networks.training import Start, Training, train
from ssl_tasks.transfer.networks.tuning import context_of, schedule_of

if TYPE_CHECKING:
    from torch import Tensor, nn

SEEDS_APART = 1 << 32
"""Between the seeds of one rate's orders: a recipe's seeds are small numbers, and no two fits share one."""
NORM_BATCH = 256


@dataclass(frozen=True)
class Ingredient:
    """A fine-tuned network and how well it does."""

    trained: Training
    val: tuple[float, float]
    """As `Task.val_score`; zeros where val has no labels."""


def check(blueprint: Blueprint) -> None:
    """Refuse further encoders of another architecture."""
    for name, network in blueprint.further.items():
        if _architecture(network) != _architecture(blueprint.backbone):
            raise RequestError(
                f"transfer.encoders: {name} is no network of the run's own architecture, and a soup is the mean of "
                "weights that mean the same; leave it out, or leave the soups out of transfer.strategies"
            )


def _architecture(network: nn.Module) -> tuple[object, ...]:
    """Layers, sizes of weights, and what becomes of a ViT's tokens, which its layers do not tell."""
    sizes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return repr(network), sizes, str(getattr(network, "global_pool", ""))


def ingredients(task: Task) -> list[Ingredient]:
    """Every encoder fine-tuned with every learning rate and order: the run's own encoder first, small rates first."""
    context = context_of(task)
    schedule = schedule_of(context)
    seeds = [task.seed + order * SEEDS_APART for order in range(context.options.soup.orders)]
    return [
        _tuned(replace(task, seed=seed), encoder, rate)
        for encoder in context.encoders()
        for rate in schedule.learning_rates
        for seed in seeds
    ]


def middle(task: Task) -> Ingredient:
    """What is taken where val has no labels: the run's own encoder, fine-tuned with the middle learning rate."""
    context = context_of(task)
    rates = schedule_of(context).learning_rates
    return _tuned(task, context.encoder, rates[len(rates) // 2])


def _tuned(task: Task, encoder: Callable[[], nn.Module], rate: float) -> Ingredient:
    schedule = replace(schedule_of(context_of(task)), learning_rates=[rate])
    trained = train(task, schedule, lambda: Start(with_head(encoder(), task.num_classes)))
    return Ingredient(trained, _val(task, trained))


def _val(task: Task, trained: Training) -> tuple[float, float]:
    return task.val_score(trained.scores(task.val)) if len(task.val_labels) else (0.0, 0.0)


def average(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each floating-point tensor over the networks; counts are those of the first."""
    import torch

    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


class Kettle:
    """Scores of soups of some ingredients."""

    def __init__(self, task: Task, made: Sequence[Ingredient]) -> None:
        self.task = task
        self.states = [_copied(one.trained.network.state_dict()) for one in made]
        self.taster = made[0].trained
        """Whose network takes the averaged weights."""

    def scores(self, places: Iterable[int], positions: IntArray) -> FloatArray:
        """(N, K) class probabilities by the mean of the ingredients at `places`; a single one is left as it is."""
        chosen = [self.states[place] for place in places]
        network, context = self.taster.network, self.taster.context
        network.load_state_dict(average(chosen))
        if len(chosen) > 1:
            train = context.domains.source if context.domains else context.train
            settle(network, lambda rows: context.to_input(context.payload(rows)), sample(train), NORM_BATCH)
        return self.taster.scores(positions)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def greedy(values: Sequence[tuple[float, float]], taste: Callable[[list[int]], tuple[float, float]]) -> list[int]:
    """Recipe 1 of the paper: from the best on val down, keep what does not make the metric of the soup worse on val.

    What decides between equal metrics is for the order alone.

    Args:
        values: of each ingredient alone.
        taste: places of ingredients to what their soup is worth.
    """
    order = sorted(range(len(values)), key=lambda place: values[place], reverse=True)
    kept, best = order[:1], values[order[0]]
    for place in order[1:]:
        value = taste([*kept, place])
        if value[0] >= best[0]:
            kept, best = [*kept, place], value
    return kept


def serve(task: Task, kettle: Kettle, places: Sequence[int], made: Sequence[Ingredient]) -> Prediction:
    """What the soup says of the test rows; `ingredients` of `of` were taken, `from 0` of them by the own encoder."""
    per_encoder = len(made) // len(context_of(task).encoders())
    facts = {"ingredients": float(len(places)), "of": float(len(made))}
    for encoder in range(len(made) // per_encoder):
        facts[f"from {encoder}"] = float(sum(place // per_encoder == encoder for place in places))
    return Prediction(kettle.scores(places, task.test), facts)
