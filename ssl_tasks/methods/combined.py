"""Several objectives on one backbone: the weighted sum of other methods' losses (arXiv 1708.07860, section 3).

pretrain: {method: {name: combined, objectives: {simclr: {temperature: 0.2}, rotation: {loss_weight: 0.5}}}}
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_tasks import methods
from ssl_tasks.backbones import Pool
from ssl_tasks.errors import RequestError
from ssl_tasks.methods.base import Batch, Method, MethodConfig, MethodSpec, TrainStats, ViewSpec, refuse_few_rows
from ssl_tasks.methods.objectives import KEY, Objectives, default_objectives
from ssl_tasks.modalities.captions import CAPTIONS
from ssl_tasks.randomness import mix, stream_key


class CombinedConfig(MethodConfig):
    """Which methods, each with `loss_weight` (1 where not set) and its own options."""

    name: Literal["combined"]
    objectives: Objectives = Field(default_factory=default_objectives)

    def parts(self) -> dict[str, MethodConfig]:
        """The methods' own configs by name.

        Raises:
            RequestError: an option is unknown or wrong, or a method takes turns of several optimizers; names its key.
        """
        for name in self.objectives:
            _require_one_phase(name, methods.spec(name).method.phases)
            if CAPTIONS in methods.spec(name).needs:
                raise RequestError(f"{KEY}.{name}: {name} learns from captions and cannot be one of several objectives")
        return {name: methods.configure(part.options(name), f"{KEY}.{name}") for name, part in self.objectives.items()}


def union(policies: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list[list[int]]]:
    """Views for several methods, and for each the numbers of those that it sees.

    Methods that ask for the same policy share its views: who wants fewer sees the first of them.

    Args:
        policies: of each method's views, in its order.
    """
    made: list[str] = []
    chosen = []
    for wanted in policies:
        numbers: list[int] = []
        for place, name in enumerate(wanted):
            same = [number for number, other in enumerate(made) if other == name]
            if wanted[:place].count(name) == len(same):
                same.append(len(made))
                made.append(name)
            numbers.append(same[wanted[:place].count(name)])
        chosen.append(numbers)
    return tuple(made), chosen


def part_keys(keys: Tensor, name: str) -> Tensor:
    """(B,) keys for the method `name`, so that what one draws says nothing of what another does."""
    return mix(keys + stream_key(f"combined.{name}"))


class Combined(Method):
    """The backbone, and below `parts` what each method adds to it."""

    def __init__(self, config: CombinedConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__(config, backbone, input_shape)
        self.parts = nn.ModuleDict(_build(config, backbone, input_shape))
        _, self.seen = union(_policies(config))
        for part in self._parts().values():
            lend(part)

    @classmethod
    def views_for(cls, config: CombinedConfig) -> ViewSpec:
        """As many of each policy as the method that wants most of it."""
        return ViewSpec(union(_policies(config))[0])

    @classmethod
    def pool_for(cls, config: CombinedConfig) -> Pool:
        """The mean of a ViT's patches where any method asks for it: the others train whatever the features are."""
        pools = [methods.spec(name).method.pool_for(part) for name, part in config.parts().items()]
        return "average" if "average" in pools else "network"

    @classmethod
    def coupled_by(cls, config: CombinedConfig) -> tuple[str, ...]:
        """The methods whose losses couple the rows of a batch."""
        parts = config.parts().items()
        return tuple(by for name, part in parts for by in methods.spec(name).method.coupled_by(part))

    @classmethod
    def check(cls, config: CombinedConfig, batch_size: int, num_rows: int | None = None) -> list[str]:
        """That of each method."""
        told = []
        for name, part in config.parts().items():
            with _naming(name):
                method = methods.spec(name).method
                refuse_few_rows(method, name, batch_size)
                told += method.check(part, batch_size, num_rows)
        return told

    def _parts(self) -> dict[str, Method]:
        return dict(self.parts.items())  # type: ignore[arg-type]  # torch types them as modules

    def prepare(self, stats: TrainStats) -> None:
        """That of each method."""
        for name, part in self._parts().items():
            with _naming(name):
                part.prepare(stats)

    def before_epoch(self, embed: Callable[[], Tensor]) -> None:
        """That of each method; features are computed once for all."""
        embed_once = functools.cache(embed)
        for part in self._parts().values():
            part.before_epoch(embed_once)

    def chance(self) -> dict[str, float]:
        """That of each method."""
        return {f"{name}_{key}": value for name, part in self._parts().items() for key, value in part.chance().items()}

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """`loss`, the weighted sum, and all that each method logs, its own loss too, below its name.

        `projection_std` is the smallest of those that the methods give: the watchdog looks for it.
        """
        losses: list[Tensor] = []
        logged: dict[str, Tensor] = {}
        for (name, part), numbers in zip(self._parts().items(), self.seen, strict=True):
            views = [batch.views[number] for number in numbers]
            output = part(Batch(views, batch.positions, part_keys(batch.keys, name)), phase)
            losses.append(self.config.objectives[name].loss_weight * output["loss"])
            logged |= {f"{name}_{key}": value.detach() for key, value in output.items()}
        spreads = [value for key, value in logged.items() if key.endswith("_projection_std")]
        watched = {"projection_std": torch.stack(spreads).min()} if spreads else {}
        return {"loss": torch.stack(losses).sum(), **watched, **logged}

    def after_step(self, progress: float) -> None:
        """That of each method."""
        for part in self._parts().values():
            part.after_step(progress)

    def param_groups(self, phase: str) -> list[dict[str, Any]]:
        """Those of each method, and the backbone once: as the first method groups it that does so itself."""
        seen: set[int] = set()
        groups = []
        rest = super().param_groups(phase)
        for group in [*(group for part in self._parts().values() for group in part.param_groups(phase)), *rest]:
            fresh = [parameter for parameter in group["params"] if id(parameter) not in seen]
            seen |= {id(parameter) for parameter in fresh}
            groups.append({**group, "params": fresh})
        return [group for group in groups if group["params"]]


def _policies(config: CombinedConfig) -> list[tuple[str, ...]]:
    return [methods.spec(name).method.views_for(part).policies for name, part in config.parts().items()]


def _build(config: CombinedConfig, backbone: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Method]:
    """The methods around one backbone.

    They are made twice: some change the backbone (MAE fixes a ViT's positions), and teachers that were copied from it
    before would teach something else.
    """
    state, built = torch.get_rng_state(), {}
    for _ in range(2):
        torch.set_rng_state(state)
        for name, part in config.parts().items():
            with _naming(name):
                built[name] = methods.spec(name).method(part, backbone, input_shape)
            _require_one_phase(name, built[name].phases)  # which may depend on options
    return built


def _require_one_phase(name: str, phases: tuple[str, ...]) -> None:
    if phases != Method.phases:
        raise RequestError(
            f"{KEY}.{name}: {name} takes turns of several optimizers ({', '.join(phases)}), and a sum has one; leave "
            "it out, or set options with which it has one (inpainting: adversarial_weight=0)"
        )


def lend(part: Method) -> None:
    """Let `part` use its backbone without owning it: parameters, state dict, norms and modes of it are the whole's."""
    backbone = part.backbone
    del part.backbone
    object.__setattr__(part, "backbone", backbone)  # past nn.Module, which would register it


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Keys in errors of a method are those below its name."""
    try:
        yield
    except RequestError as error:
        raise RequestError(str(error).replace("pretrain.method", f"{KEY}.{name}")) from error


SPEC = MethodSpec(
    name="combined",
    config=CombinedConfig,
    method=Combined,
    modalities=("image", "tabular"),
    family="several objectives",
    paper="Multi-task Self-Supervised Visual Learning, arXiv 1708.07860",
    needs=("what its objectives need",),
)
