from collections import Counter

import numpy as np
import pytest
from tests_planted import commit, split_table

from ssl_tasks.report import sections
from ssl_tasks.store import Store


@pytest.mark.parametrize("num_classes", [3, sections.MAX_CLASSES + 5])
def test_rows_groups_and_labels_of_each_split_are_those_of_a_loop(store: Store, num_classes: int) -> None:
    """In parts and by hashes of ids, for data with more rows than memory has room for as objects."""
    random = np.random.default_rng(num_classes)
    count = 9000  # more than one part
    groups = [f"g{number}" for number in random.integers(0, 2500, count)]
    splits = [("train", "val", "test")[int(group[1:]) % 7 % 3] for group in groups]
    labels = [f"c{number}" if number < num_classes else None for number in random.integers(0, 2 * num_classes, count)]
    rows = split_table(labels, splits, groups)
    found = sections.splits(commit(store, "split", lambda out: out.table("splits.parquet", rows), count))
    for line in found["sizes"]:
        here = [place for place in range(count) if splits[place] == line["name"]]
        assert line["rows"] == f"{len(here):,}"
        assert line["groups"] == f"{len({groups[place] for place in here}):,}"
        assert line["labelled"] == f"{sum(labels[place] is not None for place in here):,}"
    counts = Counter(zip(labels, splits, strict=True))
    totals = Counter(label for label in labels if label is not None)
    shown = sorted(totals) if num_classes == 3 else [name for name, _ in totals.most_common(sections.MAX_CLASSES)]
    assert [line["name"] for line in found["classes"]] == shown
    assert found["more_classes"] == num_classes - len(shown)
    for line in found["classes"]:
        assert [line[name] for name in ("train", "val", "test")] == [
            f"{counts[line['name'], name]:,}" for name in ("train", "val", "test")
        ]


def test_a_split_without_rows_has_none(store: Store) -> None:
    rows = split_table(["cat", None], ["train", "test"])
    found = sections.splits(commit(store, "split", lambda out: out.table("splits.parquet", rows), 2))
    assert found["sizes"][1] == {"name": "val", "rows": "0", "groups": "0", "labelled": "0"}
