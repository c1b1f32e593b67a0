"""What the page says of an encoder that was there before the run: where it comes from, and how it sees its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_tasks.artifact import Artifact

DIGITS = 4


def facts(adopted: Artifact, encoder: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values for the template.

    Args:
        encoder: what `encoder.json` says.
    """
    measured, stats = adopted.measured, encoder["stats"]
    shape = " x ".join(map(str, encoder["input_shape"]))
    found = [("Encoder", encoder["method"]), ("Backbone", f"{encoder['backbone']}, {encoder['num_features']} features")]
    if measured["origin"] == "ours":
        found.append(("Pretrained by", f"{adopted.manifest.parents['encoder']} in {measured['store']}"))
        found.append(("Training", f"{encoder['steps']:,} steps in {encoder['precision']}, seed {encoder['seed']}"))
    else:
        found.append(("Read from", ", ".join(measured["files"])))
    found.append(("Input", f"{shape}, normalized as it was trained, and not by this data: {_normalization(stats)}"))
    return found


def _normalization(stats: Mapping[str, Any]) -> str:
    if stats["modality"] != "image":
        return f"mean and deviation of {len(stats['mean'])} columns"
    if stats["input"] != "standard":
        return {"unit": "0 to 1", "symmetric": "-1 to 1"}[stats["input"]]
    return f"mean {_numbers(stats['mean'])}, deviation {_numbers(stats['std'])}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.{DIGITS}g}" for value in values)
