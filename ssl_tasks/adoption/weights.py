"""Weights from elsewhere onto a backbone of ours: every tensor must be there, and nothing but a classifier besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ssl_tasks.adoption.reference import KEY
from ssl_tasks.errors import RequestError

COUNTER = ".num_batches_tracked"
"""Of batch norms; files from before it was there lack it, and no forward pass in eval mode reads it."""
NAMED = 3
"""Tensors that a message names."""


def read(file: Path) -> dict[str, Tensor]:
    """A state dict from safetensors or a torch file, out of a checkpoint that holds it with other things too.

    Raises:
        RequestError: the file is damaged, or holds objects that are no weights: such are not unpickled.
    """
    from timm.models import load_state_dict

    try:
        found = load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever it stumbles on, an IndexError for three letters
        text = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(f"{KEY}: {file} is no safetensors file and no state dict of torch: {text}") from error
    weights = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not weights:
        raise RequestError(f"{KEY}: {file} holds no state dict: there is no tensor under its names")
    return weights


def load(backbone: nn.Module, weights: Mapping[str, Tensor], head: Sequence[str], *, name: str, file: Path) -> None:
    """Put `weights` into `backbone`.

    Args:
        head: names of the classifier's modules, whose weights are left out.
        name: of the network, for messages.

    Raises:
        RequestError: tensors are missing, left over, or of other shapes.
    """
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in weights and not key.endswith(COUNTER)]
    more = [key for key in weights if key not in wanted and not key.startswith(tuple(f"{part}." for part in head))]
    shapes = [key for key, value in wanted.items() if key in weights and weights[key].shape != value.shape]
    said = [f"{_named(keys)} {what}" for keys, what in ((missing, "missing"), (more, "left over")) if keys]
    said += [f"{key} is {_shape(weights[key])} and has to be {_shape(wanted[key])}" for key in shapes[:NAMED]]
    if said:
        raise RequestError(f"{KEY}: the weights in {file} are not those of {name}: {'; '.join(said)}")
    counters = {key: value for key, value in wanted.items() if key.endswith(COUNTER)}
    backbone.load_state_dict({**counters, **{key: weights[key] for key in wanted if key in weights}})


def _named(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:NAMED])
    return f"{len(keys)} tensor{'s' * (len(keys) != 1)} ({shown}{', ...' if len(keys) > NAMED else ''})"


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"
