"""Whether test rows were seen in pretraining: what the contamination stage found, or what the split proves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.contamination import Contamination, absent, rows_of, search
from ssl_tasks.cleaning.overlap import Some
from ssl_tasks.errors import RequestError
from ssl_tasks.report import predictions
from ssl_tasks.report.predictions import Int
from ssl_tasks.report.units import percent
from ssl_tasks.report.verdict import Verdict
from ssl_tasks.schema import CONTAMINATION_FILE, SOURCE, TEST
from ssl_tasks.shards import member
from ssl_tasks.store.references import find
from ssl_tasks.transfer import strategy
from ssl_tasks.transfer.targets import CLASSIFICATION

EXAMPLES = 8


def found(inputs: Mapping[str, Artifact]) -> Contamination | None:
    """What the stage found, or what is found here where an encoder came into the run from another: one that training
    began from, or a further one. None where there is none."""
    if "contamination" in inputs:
        artifact = inputs["contamination"]
        return Contamination(artifact.table(CONTAMINATION_FILE), artifact.measured)
    pretrain, transfer = inputs["pretrain"].manifest.parents, inputs["transfer"].manifest.parents
    others = [value for name, value in pretrain.items() if name == "init_from"]
    others += [value for name, value in transfer.items() if name.startswith("encoder ")]
    if not others:
        return None
    tested = Some(inputs["clean"], rows_of(inputs["split"], TEST))
    return search([_at_hand(inputs["split"].uri, one) for one in others], tested, inputs["ingest"])


def at_hand(references: Sequence[str], store: str) -> str | None:
    """A hash of what is not at hand of that which these encoders were pretrained on, None where all is."""
    return absent(_at_hand(store, reference.rstrip("/").rpartition("/")[2]) for reference in references)


def _at_hand(store: str, fingerprint: str) -> Artifact | str:
    try:
        return find(fingerprint, store, key="contamination", stage="pretrain")
    except RequestError:
        return f"the encoder {fingerprint[:12]} is in another store, or was removed"


def section(
    inputs: Mapping[str, Artifact], contamination: Contamination | None, verdict: Verdict, method: str
) -> dict[str, Any]:
    """Sentences, and the pairs that are most alike, for the template.

    Args:
        contamination: as `found` gives it.
        method: whose encoder it is.
    """
    own = _of_one_data_set(inputs, others=contamination is not None) if "pretrain" in inputs else []
    if contamination is None:
        return {"sentences": own, "pairs": []}
    table = contamination.table
    order = pc.sort_indices(table, sort_keys=[("similarity", "descending"), ("row", "ascending")])
    pairs = [
        {"test": line[SOURCE], "seen": line["other_source"], "kind": _kind(line)}
        for line in table.take(order[:EXAMPLES]).to_pylist()
    ]
    rest = without(table["row"].to_numpy(), inputs["transfer"], verdict, method) if table.num_rows else []
    return {"sentences": [*own, *sentences(contamination.measured), *rest], "pairs": pairs}


def without(seen: Int, transfer: Artifact, verdict: Verdict, method: str) -> list[str]:
    """What the first strategy is worth on the test rows that are left; nothing where it tells no classes.

    Args:
        seen: row numbers, some of them twice.
    """
    if not verdict.lines or transfer.measured.get("task", CLASSIFICATION) != CLASSIFICATION:
        return []
    said = []
    for fits in predictions.load(transfer, verdict.lines, verdict.strategy, method):
        fresh = ~member(fits.rows, np.unique(seen))
        if fresh.all() or not fresh.any():
            continue
        first, others = (percent(float(right.mean())) for right in (fits.right[fresh], fits.right))
        said.append(
            f"With {fits.budget}, {strategy(verdict.strategy).title} reached {first} accuracy on the "
            f"{int(fresh.sum()) // fits.num_seeds:,} labelled test rows that it had not seen, and {others} on all."
        )
    return said


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


def _of_one_data_set(inputs: Mapping[str, Artifact], *, others: bool) -> list[str]:
    """A run pretrains on the train rows of the data that it tests on.

    Args:
        others: whether encoders that came into the run have seen other data too.
    """
    what = (
        "This run's own training used the train rows of this data set"
        if others
        else "This run pretrained on the train rows of this data set alone"
    )
    leaked = inputs["split"].measured.get("leaked_test_rows", 0)
    return [
        f"{what}. Duplicates were joined into groups before the split, and {leaked:,} test rows have a group mate in "
        "train."
    ]


def _kind(line: Mapping[str, Any]) -> str:
    return "equal" if line["kind"] == "equal" else f"{line['similarity']:.2f} alike"
