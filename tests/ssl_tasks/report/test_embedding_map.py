import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from tests_planted import planted, split_table

from ssl_tasks.report import embedded
from ssl_tasks.report.embedding_map import MOST_ROWS, chosen, colouring, project, project_umap, section
from ssl_tasks.report.scatter import Dot, scatter
from ssl_tasks.stages import embed
from ssl_tasks.store import Store


def test_shares_of_variance_and_coordinates() -> None:
    """Sums of squares of 32, 8 and 2 along the three axes, around 7."""
    values = np.array([[4, 0, 0], [-4, 0, 0], [0, 2, 0], [0, -2, 0], [0, 0, 1], [0, 0, -1]]) + 7.0
    points, shares = project(values)
    assert shares == pytest.approx([32 / 42, 8 / 42])
    assert np.abs(points[:2]) == pytest.approx(np.array([[4, 0], [4, 0]]))
    assert np.abs(points[2:4]) == pytest.approx(np.array([[0, 2], [0, 2]]))
    assert points[4:] == pytest.approx(np.zeros((2, 2)))


@pytest.mark.parametrize("values", [np.full((5, 3), 0.1), np.ones((1, 4)), np.zeros((3, 2))])
def test_a_collapsed_encoder_has_a_map_too(values: np.ndarray) -> None:
    points, shares = project(values)
    assert shares == [0.0, 0.0]
    assert not points.any()
    ElementTree.fromstring(scatter("t", [Dot(0, 0, "c0", "a", "val")], ("x", "y"), images=[], names=[], define=True))


def test_one_dimension_is_a_line() -> None:
    points, shares = project(np.array([[1.0], [2.0], [6.0]]))
    assert shares == pytest.approx([1.0, 0.0])
    assert np.abs(points[:, 0]) == pytest.approx([2, 1, 3])


def test_rows_that_were_not_trained_on_are_drawn_in_the_order_of_their_keys() -> None:
    splits = split_table(["a"] * 6000, ["train", "val", "test"] * 2000)
    found = chosen(splits)
    assert len(set(found.tolist())) == MOST_ROWS
    assert set(found % 3) == {1, 2}
    keys = splits["label_key"].to_numpy()
    assert keys[found].max() < np.delete(keys[np.arange(6000) % 3 > 0], 0).max()
    assert (np.diff(keys[found]) > 0).all()
    assert len(chosen(split_table(["a"] * 4, ["train"] * 4))) == 4


def test_colours_stand_for_classes_or_for_splits() -> None:
    few = colouring(["dog", None, "cat"], ["val", "val", "test"])
    assert few.by == "class"
    assert few.css == ["c1", "c-none", "c0"]
    assert few.legend == [("c0", "cat"), ("c1", "dog"), ("c-none", "no label")]
    for labels in ([None] * 11, [f"class {number}" for number in range(11)]):
        many = colouring(labels, ["val"] * 5 + ["test"] * 6)
        assert many.by == "split"
        assert many.css == ["c0"] * 5 + ["c1"] * 6
        assert many.legend == [("c0", "val"), ("c1", "test")]


def test_dots_stand_where_they_belong_and_lie_on_a_common_scale() -> None:
    dots = [Dot(0, 0, "c0", "a", "val"), Dot(10, 5, "c0", "a", "val"), Dot(5, 0, "c1", "b", "val")]
    tree = ElementTree.fromstring(scatter("t", dots, ("along", "up"), images=[], names=[], define=True))
    circles = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in tree.findall("circle")]
    assert circles == [(30, 247.5), (344, 90.5)]  # 314 px for 10 units, in both directions
    (square,) = [rect for rect in tree.findall("rect") if rect.get("class") == "c1"]
    assert float(square.get("x")) + float(square.get("width")) / 2 == pytest.approx(187, abs=0.1)
    assert {"along", "up"} <= {text.text for text in tree.findall("text")}


def test_pictures_are_held_once_and_labels_are_escaped() -> None:
    dots = [Dot(0, 0, "c0", "<b>", "val"), Dot(1, 1, "c0", "<b>", "test")]
    first, second = (
        scatter("<i>", dots, ("<x>", "y"), images=["data:x"], names=[("<b>", "c0")] * 2, define=define)
        for define in (True, False)
    )
    for svg in (first, second):
        assert "<b>" not in svg
        assert "<i>" not in svg
        assert "<x>" not in svg
        (pointed,) = ElementTree.fromstring(svg).findall("g")
        assert pointed.find("use").get("href") == "#picture-0"
        assert [text.text for text in pointed.findall("text")] == ["<b>", "val"]
    assert first.count("data:x") == 1
    assert second.count("data:x") == 0


def test_embeddings_are_taken_by_position(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PART_ROWS", 64)
    artifact = planted(store)["embed"]
    whole = np.array(artifact.table(embed.PRETRAINED_FILE)["embedding"].to_pylist())
    positions = np.array([250, 3, 64, 63, 299])
    assert embedded.take(artifact, embed.PRETRAINED_FILE, positions) == pytest.approx(whole[positions])


def test_maps_of_both_networks(tmp_path: Path) -> None:
    for labels, by in ((("cat", "dog", "owl"), "class"), (None, "split")):
        made = planted(Store.open(str(tmp_path / by)), labels=labels)
        splits: pa.Table = made["split"].table("splits.parquet")
        found = section(splits, made["embed"], None, "scarf", "pca")
        assert found["by"] == by
        assert found["pictures"] == 0
        assert len(found["maps"]) == 2
        shares = [float(re.findall(r"component 1: ([\d.]+)%", one["svg"])[0]) for one in found["maps"]]
        assert shares[0] > shares[1]  # classes that lie apart, against noise
        dots = sum(name in ("val", "test") for name in splits["split"].to_pylist())
        assert found["rows"] == str(dots)


def test_umap_keeps_classes_together_and_gives_the_same_map_again() -> None:
    pytest.importorskip("umap", reason="the extra umap is not installed")
    random = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2], 40)
    values = np.eye(3, 8)[classes] * 8 + random.normal(size=(120, 8))
    first, second = project_umap(values), project_umap(values)
    assert np.array_equal(first, second)
    centres = np.array([first[classes == one].mean(axis=0) for one in range(3)])
    nearest = np.linalg.norm(first[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == classes).mean() > 0.95


def test_too_few_or_equal_rows_need_no_umap() -> None:
    values = np.random.default_rng(0).normal(size=(9, 4))
    assert np.array_equal(project_umap(values), project(values)[0])
    assert not project_umap(np.ones((50, 4))).any()
