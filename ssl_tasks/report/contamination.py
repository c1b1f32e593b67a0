"""Whether test rows were seen in pretraining: what the contamination stage found, or what the split proves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import CONTAMINATION_FILE, SOURCE

EXAMPLES = 8


def section(inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """Sentences, and for an adopted encoder the pairs that are most alike, for the template."""
    if "contamination" not in inputs:
        return {"sentences": _of_one_data_set(inputs), "pairs": []}
    found = inputs["contamination"]
    table = found.table(CONTAMINATION_FILE)
    order = pc.sort_indices(table, sort_keys=[("similarity", "descending"), ("row", "ascending")])
    pairs = [
        {"test": line[SOURCE], "seen": line["other_source"], "kind": _kind(line)}
        for line in table.take(order[:EXAMPLES]).to_pylist()
    ]
    return {"sentences": sentences(found.measured), "pairs": pairs}


def sentences(measured: Mapping[str, Any]) -> list[str]:
    """What was checked and found, and what cannot be known.

    Args:
        measured: by the contamination stage.
    """
    said = []
    alike = measured["near_duplicates"]
    what = "equal ones only" if alike is None else f"equal ones, and nearly equal ones (alike by {alike:g} and more)"
    for one in measured["checked"]:
        said.append(
            f"The {measured['test_rows']:,} test rows were sought among the {one['rows']:,} rows that the encoder "
            f"{one['encoder'][:12]} was pretrained on, {what}."
        )
    if measured["checked"]:
        equal, near = measured["equal"], measured["near"]
        said.append(
            f"{equal + near:,} test rows were seen in pretraining: {equal:,} equal, {near:,} nearly equal."
            if equal + near
            else "No test row was seen in pretraining."
        )
    said += [f"Not checked: {reason}." for reason in measured["unknown"]]
    return said


def _of_one_data_set(inputs: Mapping[str, Artifact]) -> list[str]:
    """A run pretrains on the train rows of the data that it tests on."""
    leaked = inputs["split"].measured.get("leaked_test_rows", 0)
    said = [
        "The encoder was pretrained on the train rows of this data set alone. Duplicates were joined into groups "
        f"before the split, and {leaked:,} test rows have a group mate in train."
    ]
    began = inputs["pretrain"].manifest.parents.get("init_from")
    if began:
        said.append(
            f"Not checked: training began from the encoder {began[:12]}, and what that was pretrained on was not held "
            "against these test rows; pretextflow transfer does so."
        )
    return said


def _kind(line: Mapping[str, Any]) -> str:
    return "equal" if line["kind"] == "equal" else f"{line['similarity']:.2f} alike"
