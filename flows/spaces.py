"""What a search draws its trials from: candidates whose values may be distributions, in the shape of compare's file.

hot: {pretrain: {method: {name: simclr, temperature: {loguniform: [0.05, 0.5]}}, batch_size: {choice: [128, 256]}}}
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.compare import Candidate, candidates
from ssl_tasks.errors import RequestError

BUILTIN = Path(__file__).with_name("spaces.yaml")
LR = "pretrain.optimizer.lr"
LR_REACH = 5.0
"""A built-in space goes from the recipe's learning rate divided by this to it times this."""
DIGITS = 3
"""Significant digits of what is drawn: a recipe should read well."""
REPEATS = 50
"""Where so many draws in a row of each candidate were there before, they have no more to give."""


@dataclass(frozen=True)
class Draw:
    """One trial to be: a candidate without distributions, and what was drawn for it, by the key's path."""

    candidate: Candidate
    parameters: dict[str, Any]


def spaces(methods: str | None, file: Path | None, lr: float) -> list[Candidate]:
    """Candidates to draw from: methods with their built-in spaces, then those of a file.

    An override of a distribution ends in its kind, as `pretrain.optimizer.lr.loguniform=[0.001, 0.01]`.

    Args:
        lr: the recipe's learning rate.

    Raises:
        RequestError: as `compare.candidates`, or a distribution that cannot be drawn from, by its name and key.
    """
    found = candidates(methods, file, command="search")
    known = {candidate.name: candidate.overrides for candidate in candidates(None, BUILTIN)}
    num_methods = sum(bool(name.strip()) for name in (methods or "").split(","))  # they come first
    rate = f"{LR}.loguniform={json.dumps([lr / LR_REACH, lr * LR_REACH])}"
    found[:num_methods] = [
        Candidate(space.name, (*space.overrides, rate, *known.get(space.name, ()))) for space in found[:num_methods]
    ]
    for space in found:
        keys = [_split(text)[0] for text in space.overrides]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise RequestError(f"candidate {space.name}: {twice[0]} has two values; give it one distribution")
        _draw(space, np.random.default_rng(0))
    return found


def draw(found: Sequence[Candidate], num_trials: int, seed: int) -> list[Draw]:
    """At most `num_trials` different trials, from the candidates in turn.

    Of two calls with one seed, the shorter list is the start of the longer one.
    """
    drawn: list[Draw] = []
    seen: set[tuple[str, ...]] = set()
    counts: Counter[str] = Counter()
    number = last_new = 0
    while len(drawn) < num_trials and number - last_new <= REPEATS * len(found):
        space = found[number % len(found)]
        overrides, parameters = _draw(space, np.random.default_rng([seed, number]))
        number += 1
        if overrides not in seen:
            seen.add(overrides)
            counts[space.name] += 1
            last_new = number
            drawn.append(Draw(Candidate(f"{space.name}-{counts[space.name]}", overrides), parameters))
    return drawn


def _draw(space: Candidate, random: np.random.Generator) -> tuple[tuple[str, ...], dict[str, Any]]:
    overrides, parameters = [], {}
    for text in space.overrides:
        key, kind, value = _split(text)
        if kind:
            try:
                parameters[key] = KINDS[kind](json.loads(value), random)
            except (TypeError, ValueError) as error:
                raise RequestError(f"candidate {space.name}: {key}: {{{kind}: {value}}}: {error}") from None
            text = f"{key}={json.dumps(parameters[key])}"
        overrides.append(text)
    return tuple(overrides), parameters


def _split(text: str) -> tuple[str, str, str]:
    """Key, kind of distribution (empty for none) and value of an override."""
    key, _, value = text.partition("=")
    path, _, kind = key.rpartition(".")
    return (path, kind, value) if kind in KINDS else (key, "", value)


def _bounds(given: Any) -> tuple[float, float]:
    if not isinstance(given, list) or len(given) != 2:
        raise ValueError("expected [lowest, highest]")
    low, high = (float(bound) for bound in given)  # YAML takes 1e-4 for text
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("the first must be below the second")
    return low, high


def _rounded(value: float, low: float, high: float) -> float:
    return min(high, max(low, float(f"{value:.{DIGITS}g}")))


def _uniform(given: Any, random: np.random.Generator) -> float:
    low, high = _bounds(given)
    return _rounded(float(random.uniform(low, high)), low, high)


def _loguniform(given: Any, random: np.random.Generator) -> float:
    low, high = _bounds(given)
    if low <= 0:
        raise ValueError("both must be above 0")
    return _rounded(math.exp(float(random.uniform(math.log(low), math.log(high)))), low, high)


def _choice(given: Any, random: np.random.Generator) -> Any:
    if not isinstance(given, list) or not given:
        raise ValueError("expected a list of values")
    return given[int(random.integers(len(given)))]


KINDS: dict[str, Callable[[Any, np.random.Generator], Any]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "choice": _choice,
}
