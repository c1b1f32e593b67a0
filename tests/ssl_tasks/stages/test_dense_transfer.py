"""The transfer stage on masks and boxes, whole: every encoder and baseline, tables, refusals."""

from __future__ import annotations

import base64
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_dense import dense_folder
from tests_dense_chain import dense_made

from flows.preflight import check_request
from flows.preflight.labels import require_labels, require_stored_targets, require_usable_labels
from flows.recipe import build_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.materialize import materialize
from ssl_tasks.shards import Shards
from ssl_tasks.stages.transfer import STAGE, TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.transfer import data
from ssl_tasks.transfer.dense_targets import check_stored, largest_boxes

SMALL: dict[str, Any] = {
    "label_fractions": [0.3, 1.0],
    "seeds": 2,
    "bootstrap": 100,
    "scratch": {"steps": 20, "learning_rates": [0.01]},
    "dense": {"steps": 60, "learning_rates": [0.001, 0.1]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    root = tmp_path_factory.mktemp("dense")
    return dense_made(Store.open(str(root / "store")), root / "data")


def transfer(made: dict[str, Artifact], **config: Any) -> Artifact:
    parsed = TransferConfig.model_validate({**SMALL, **config})
    parents = {name: made[name] for name in STAGE.inputs}
    fingerprint = STAGE.fingerprint(parsed, {name: parent.fingerprint for name, parent in parents.items()})
    store = made["ingest"].store
    return materialize(store, STAGE, parsed, parents, fingerprint=fingerprint, force=True).artifact


@pytest.fixture(scope="module")
def segmented(made: dict[str, Artifact]) -> Artifact:
    return transfer(made, task="segmentation")


@pytest.fixture(scope="module")
def located(made: dict[str, Artifact]) -> Artifact:
    return transfer(made, task="localization")


def values(found: Artifact, metric: str) -> dict[tuple[str, float], float]:
    lines: dict[tuple[str, float], list[float]] = {}
    for row in found.table("metrics.parquet").to_pylist():
        if row["metric"] == metric:
            lines.setdefault((row["method"], row["label_fraction"]), []).append(row["value"])
    assert all(len(several) == 2 for several in lines.values())
    return {key: float(np.mean(several)) for key, several in lines.items()}


def test_an_encoder_that_has_learnt_masks_beats_the_untrained_one_and_the_majority(segmented: Artifact) -> None:
    iou = values(segmented, "mean_iou")
    methods = {"simclr", "random_init", "raw_input", "from_scratch", "majority"}
    assert iou.keys() == {(method, fraction) for method in methods for fraction in (0.3, 1.0)}
    assert iou["simclr", 0.3] > iou["random_init", 0.3] + 0.03
    assert all(iou[method, 1.0] > iou["majority", 1.0] + 0.1 for method in ("simclr", "random_init", "raw_input"))
    assert iou["raw_input", 1.0] > 0.9  # a colour tells the class here
    for line in segmented.measured["summary"]:
        assert (line["strategy"], line["metric"]) == ("segmentation", "mean_iou")
        assert line["low"] <= line["difference"] == pytest.approx(line["pretrained"] - line["random_init"])
    names = set(segmented.table("metrics.parquet")["metric"].to_pylist())
    assert names == {"mean_iou", "pixel_accuracy", "mean_class_accuracy", "iou_0", "iou_1", "iou_2"}
    assert not segmented.table("failures.parquet").num_rows


def test_the_predictions_hold_pixels_and_the_first_masks(made: dict[str, Artifact], segmented: Artifact) -> None:
    rows = segmented.table("predictions.parquet").to_pylist()
    labelled = data.load(made["split"], (), "segmentation", made["normalize"])
    masks = Shards.open(made["normalize"], "mask").take(labelled.test)
    first = rows[: len(masks)]
    assert [row["row"] for row in first] == labelled.splits["row"].take(labelled.test).to_pylist()
    for place, (row, mask) in enumerate(zip(first, masks, strict=True)):
        assert row["true_pixels"] == [float((mask == k).sum()) for k in range(3)]
        assert (row["predicted"] is None) == (place >= 6)
        if row["predicted"]:
            said = np.asarray(Image.open(io.BytesIO(row["predicted"])))
            assert row["right_pixels"] == [float(((said == k) & (mask == k)).sum()) for k in range(3)]
            assert row["predicted_pixels"] == [float((said == k).sum()) for k in range(3)]


def test_boxes_are_found_better_than_by_their_mean(made: dict[str, Artifact], located: Artifact) -> None:
    iou = values(located, "mean_box_iou")
    assert iou["simclr", 1.0] > iou["majority", 1.0] + 0.05
    rows = located.table("predictions.parquet").to_pylist()
    truth = largest_boxes(made["normalize"])
    splits = made["split"].table("splits.parquet")["row"].to_pylist()
    for row in rows[:5]:
        assert row["box"] == pytest.approx(truth[splits.index(row["row"])].tolist())
    best = [row["iou"] for row in rows if (row["method"], row["label_fraction"], row["seed"]) == ("simclr", 1.0, 0)]
    mean = [
        row["value"]
        for row in located.table("metrics.parquet").to_pylist()
        if (row["method"], row["label_fraction"], row["seed"], row["metric"]) == ("simclr", 1.0, 0, "mean_box_iou")
    ]
    assert np.mean(best) == pytest.approx(mean[0])


def test_equal_inputs_give_equal_bytes_with_any_number_of_workers(made: dict[str, Artifact]) -> None:
    config = {"task": "localization", "label_fractions": [1.0], "seeds": 1, "raw_input": False}
    first, second = (transfer(made, workers=workers, **config).manifest.data_checksum for workers in (1, 3))
    assert first == second


def test_the_largest_box_counts(made: dict[str, Artifact]) -> None:
    from tests_dense import scene

    found = largest_boxes(made["normalize"]) * 32
    rows = np.concatenate(Shards.open(made["normalize"]).rows)
    for row, box in zip(rows.tolist(), found, strict=True):
        areas = sorted(scene(row)[2], key=lambda given: given[2] * given[3])
        assert box[2] * box[3] == pytest.approx(areas[-1][2] * areas[-1][3], rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strategies": ["linear_probe"]}, "linear_probe cannot do transfer.task=segmentation; use segmentation"),
        ({"metric": "accuracy"}, "transfer.task=segmentation is chosen by; expected mean_iou, pixel_accuracy"),
        ({"labels_per_class": [5]}, "has no single classes to count by"),
        ({"strategies": ["boxes"]}, "boxes cannot do transfer.task=segmentation"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransferConfig.model_validate({"task": "segmentation", **wrong})


def recipe(task: str, **sections: Any) -> Any:
    return build_recipe({"name": "x", "transfer": {"task": task}, **sections}, where="test")


def test_data_without_masks_is_refused_before_anything_else(made: dict[str, Artifact]) -> None:
    for task, key in (("segmentation", "masks"), ("localization", "boxes")):
        require_labels(recipe(task), made["ingest"])
        require_usable_labels(recipe(task), made["split"])
        require_stored_targets(recipe(task), made["normalize"])
        bare: Any = type("Bare", (), {"measured": {"shape": [32, 32, 3]}})()
        with pytest.raises(RequestError, match=rf"transfer.task: {task} needs {key}, .* set ingest.{key}=true"):
            require_labels(recipe(task), bare)
        with pytest.raises(RequestError, match=rf"transfer.task: {task} needs {key}, and normalize has stored none"):
            require_stored_targets(recipe(task), bare)


def test_masks_of_one_class_are_refused() -> None:
    one: Any = type("One", (), {"measured": {"masks": {"rows": 5, "classes": [0]}}})()
    with pytest.raises(RequestError, match="two classes at least, and all their pixels are 0 or 255, which is ignored"):
        check_stored(one, "segmentation")


def test_a_backbone_without_a_map_is_refused_before_any_stage_runs() -> None:
    stages: Any = [type("P", (), {"stage": STAGE, "config": TransferConfig(task="segmentation"), "name": "transfer"})()]
    made = recipe("segmentation", pretrain={"backbone": "crbm:8x5", "method": "rbm"})
    with pytest.raises(RequestError, match=r"pretrain.backbone: ConvRBM has no feature map"):
        check_request(made, stages)


def test_a_split_without_masks_is_refused(tmp_path: Path, made: dict[str, Artifact]) -> None:
    from ssl_tasks.transfer.dense_targets import check_splits

    splits = made["split"].table("splits.parquet")
    known = splits["split"].to_numpy() != "test"
    with pytest.raises(RequestError, match=r"segmentation needs masks, and no test row has any; raise the test share"):
        check_splits(known, splits, "segmentation")


def report(made: dict[str, Artifact], found: Artifact) -> str:
    from ssl_tasks.stages.report import STAGE as REPORT
    from ssl_tasks.stages.report import ReportConfig

    parents = {name: found if name == "transfer" else made[name] for name in REPORT.inputs}
    fingerprint = REPORT.fingerprint(ReportConfig(), {name: parent.fingerprint for name, parent in parents.items()})
    page = materialize(made["ingest"].store, REPORT, ReportConfig(), parents, fingerprint=fingerprint).artifact
    return page.path("report.html").read_text()


def pictures(page: str, title: str) -> list[list[np.ndarray]]:
    """Of each strip under a heading."""
    part = page.split(f"<h2>{title} of test images</h2>")[1].split("<h2>")[0]
    found = [re.findall(r'src="data:image/png;base64,([^"]+)"', strip) for strip in part.split('class="strip"')[1:]]
    return [[np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in strip] for strip in found]


def test_the_page_shows_truth_and_prediction_beside_each_other(made: dict[str, Artifact], segmented: Artifact) -> None:
    page = report(made, segmented)
    strips = pictures(page, "Masks")
    assert [len(strip) for strip in strips] == [4] * 6
    labelled = data.load(made["split"], (), "segmentation", made["normalize"])
    masks = Shards.open(made["normalize"], "mask").take(labelled.test[:6])
    for (plain, true, ours, theirs), mask in zip(strips, masks, strict=True):
        factor = len(plain) // 32
        changed = (plain != true).any(axis=2)[::factor, ::factor]
        assert np.array_equal(changed, mask != 0)
        assert plain.shape == ours.shape == theirs.shape
    assert "mean IoU" in page
    assert "Iou_1" in page
    assert "of the pixels of its labelled rows right" in page


def test_the_page_shows_boxes(made: dict[str, Artifact], located: Artifact) -> None:
    page = report(made, located)
    strips = pictures(page, "Boxes")
    assert [len(strip) for strip in strips] == [4] * 6
    rows = located.table("predictions.parquet").to_pylist()
    for (plain, true, _, _), row in zip(strips, rows, strict=False):
        lines, columns = np.nonzero((plain != true).any(axis=2))
        x, y, w, h = (share * len(plain) for share in row["box"])
        assert [columns.min(), lines.min()] == pytest.approx([x, y], abs=1)
        assert [columns.max(), lines.max()] == pytest.approx([x + w, y + h], abs=2)
    assert "Share of boxes with an IoU over 0.5" in page
    assert "majority always says the mean of the boxes." in " ".join(page.split())


def test_masks_travel_to_other_processes_as_a_handle(made: dict[str, Artifact]) -> None:
    labelled = data.load(made["split"], (), "segmentation", made["normalize"])
    before = labelled.labels[labelled.test]
    packed = pickle.dumps(labelled.labels)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed)[labelled.test], before)


def test_an_encoder_that_is_there_already_is_measured_on_other_masks(
    tmp_path: Path, made: dict[str, Artifact], chain: Any
) -> None:
    other = dense_folder(tmp_path / "other", 90, 40, first=3000)  # not of the side that the encoder was trained on
    sections = {
        "adopt": {"encoder": made["pretrain"].fingerprint},
        "ingest": {"path": str(other), "masks": True},
        "clean": {"near_duplicates": None},
        "split": {"fractions": [0.5, 0.2, 0.3]},
        "transfer": {**SMALL, "task": "segmentation", "seeds": 1, "label_fractions": [1.0]},
    }
    found = chain(made["ingest"].store, sections, until="report")
    assert found["normalize"].measured["masks"]["rows"] == 90
    (line,) = found["transfer"].measured["summary"]
    assert line["pretrained"] > line["majority"] + 0.1
    assert len(pictures(found["report"].path("report.html").read_text(), "Masks")) == 6
