"""Whether data looks to an encoder as what it was trained on did: in other units or depths it may look like nothing.

Pixels of 12 bits in a range of 16, or heights in metres where there were centimetres, can be stored and embedded, and
every number that follows is of an encoder that saw next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ssl_tasks.modalities.base import Modality, Stats

ROWS = 512
"""Train rows that are looked at, evenly from all."""
FAR = 5.0
"""Deviations of its training data that a mean may lie from that data's."""
FLAT = 0.05
"""Share of the training data's deviation that images vary by at least."""
NAMED = 3
Float = NDArray[np.float64]


def warnings(payload: NDArray[Any], modality: Modality, stats: Stats) -> list[str]:
    """What an encoder of these statistics would not recognize; nothing where all is well.

    Args:
        payload: (N, ...) as stored.
    """
    import torch

    inputs = modality.to_input(torch.from_numpy(payload), stats)
    values = inputs.transpose(0, 1).flatten(1).double()
    centre, spread = _expected(stats)
    mean, deviation = ((values.mean(1).numpy() - centre) / spread, values.std(1).numpy() / spread)
    if stats["modality"] == "image":
        names = [f"channel {number}" for number in range(1, len(mean) + 1)]
        asked = np.ones(len(mean), bool)
        flat = deviation < FLAT
    else:
        names = list(stats["columns"])
        asked = np.array([name in stats["vocabulary"]["columns"] for name in names])  # others are categories
        flat = np.zeros(len(mean), bool)
    said = [
        f"{names[place]} lies {abs(mean[place]):.1f} deviations {'above' if mean[place] > 0 else 'below'}"
        for place in np.flatnonzero(asked & (np.abs(mean) > FAR))
    ]
    said += [f"{names[place]} varies by {100 * deviation[place]:.1f}%" for place in np.flatnonzero(flat)]
    if not said:
        return []
    more = f" and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return [
        f"the data does not look like what the encoder was trained on ({'; '.join(said[:NAMED])}{more} of it): give "
        "values in the units and the range that it knows"
    ]


def _expected(stats: Stats) -> tuple[Float | float, Float | float]:
    """Mean and deviation of the model's inputs on the training data."""
    if stats["modality"] != "image" or stats["input"] == "standard":
        return 0.0, 1.0
    mean, std = np.array(stats["mean"]), np.array(stats["std"])
    return (mean, std) if stats["input"] == "unit" else (2 * mean - 1, 2 * std)
