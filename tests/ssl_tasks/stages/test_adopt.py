"""Existing encoders through all stages, without Ray: their own normalization, contamination, the page."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests_adopted import QUICK, SPLIT, picture, pretrained, recipe, timm_file

from flows.plan import make_plan
from flows.recipe import build_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.cleaning.contamination import pretrained_on
from ssl_tasks.encoder import load_encoder
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.materialize import materialize
from ssl_tasks.report.adopted import facts
from ssl_tasks.schema import CONTAMINATION, SPLITS_FILE
from ssl_tasks.shards import Shards
from ssl_tasks.stages import contamination, embed, report, transfer
from ssl_tasks.store import Store


def write(root: Path, seeds: range) -> Path:
    """Dark pictures and bright ones, two classes."""
    for seed in seeds:
        folder = root / ("bright" if seed % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        picture(seed, 16).point(lambda value, seed=seed: value // 3 + 150 * (seed % 2)).save(folder / f"{seed:03d}.png")
    return root


@pytest.fixture
def ours(tmp_path: Path, chain: Any) -> dict[str, Artifact]:
    """An encoder of ours, and what it was pretrained on."""
    store = Store.open(str(tmp_path / "store"))
    data = chain(store, {"ingest": {"path": str(write(tmp_path / "unlabelled", range(60)))}, "normalize": {"size": 16}})
    return {**data, "pretrain": pretrained(data, "test_resnet")}


def test_an_encoder_of_ours_on_new_data(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    store, encoder = ours["split"].store, ours["pretrain"]
    made = chain(store, recipe(encoder.fingerprint, write(tmp_path / "new", range(100, 190))), until="report")
    adopted = made["adopt"]
    assert adopted.manifest.parents == {"encoder": encoder.fingerprint}
    for name in ("encoder.json", "encoder.safetensors", "initial.safetensors"):
        assert adopted.manifest.files[name].sha256 == encoder.manifest.files[name].sha256
    assert made["normalize"].json("stats.json") == ours["normalize"].json("stats.json")
    payload = torch.from_numpy(Shards.open(made["normalize"]).take(np.arange(90)))
    with torch.no_grad():
        expected = load_encoder(encoder)(payload).numpy()
    embedded = np.array(made["embed"].table("embeddings/pretrained.parquet")["embedding"].to_pylist())
    assert embedded == pytest.approx(expected, abs=1e-5)
    assert {line["strategy"] for line in made["transfer"].measured["summary"]} == {"linear_probe", "last_layers"}
    found = made["contamination"].measured
    assert (found["equal"], found["near"], found["unknown"]) == (0, 0, [])
    assert found["checked"] == [{"encoder": encoder.fingerprint, "rows": ours["split"].measured["splits"]["train"]}]
    text = " ".join(made["report"].path("report.html").read_text().split())
    assert text.index('class="verdict') < text.index("<h2>")
    assert "<h2>Encoder</h2>" in text
    assert "<h2>Pretraining</h2>" not in text
    assert "Losses" not in text
    assert "No test row was seen in pretraining." in text
    assert encoder.fingerprint in text


def test_the_policy_is_the_recipes(
    ours: dict[str, Artifact], tmp_path: Path, chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_tasks.transfer import context

    asked: list[Any] = []
    true_policy = context.policy_of

    def policy_of(*given: Any) -> Any:
        asked.append(true_policy(*given))
        return asked[-1]

    monkeypatch.setattr(context, "policy_of", policy_of)
    data = write(tmp_path / "new", range(100, 160))
    chain(
        ours["split"].store,
        recipe(ours["pretrain"].fingerprint, data, augment={"flip_probability": 0.125}),
        until="transfer",
    )
    assert [policy.flip_probability for policy in asked] == [0.125]


def test_planted_leaks_are_found_and_told(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    splits = ours["split"].table(SPLITS_FILE).to_pylist()
    sources = ours["ingest"].table("rows.parquet")["source"].to_pylist()
    train, held_out = (
        [sources[row["row"]] for row in splits if (row["split"] == "train") == wanted] for wanted in (True, False)
    )
    new = tmp_path / "new"
    write(new / "train", range(100, 140))
    write(new / "test", range(200, 230))
    old, test = tmp_path / "unlabelled", new / "test"
    Image.open(old / train[0]).save(test / "dark" / "copied.bmp")  # equal pixels in another format
    Image.open(old / train[1]).save(test / "bright" / "again.jpg", quality=95, subsampling=0)
    shutil.copy(old / train[2], new / "train" / "dark" / "harmless.png")  # in train it is no leak
    shutil.copy(old / held_out[0], test / "dark" / "held_out.png")  # the encoder has not seen it
    made = chain(ours["split"].store, recipe(ours["pretrain"].fingerprint, new), until="report")
    table = made["contamination"].table("contamination.parquet")
    assert table.schema.equals(CONTAMINATION)
    assert {(row["source"], row["other_source"], row["kind"]) for row in table.to_pylist()} == {
        ("test/dark/copied.bmp", train[0], "equal"),
        ("test/bright/again.jpg", train[1], "near"),
    }
    measured = made["contamination"].measured
    assert (measured["test_rows"], measured["equal"], measured["near"]) == (33, 1, 1)
    assert measured["warnings"][0].startswith("2 of 33 test rows are in the data that the encoder was pretrained on")
    html = made["report"].path("report.html").read_text()
    text = " ".join(html.split())
    assert "2 test rows were seen in pretraining: 1 equal, 1 nearly equal." in text
    predictions = made["transfer"].table("predictions.parquet").to_pylist()
    ours_first = [row for row in predictions if (row["strategy"], row["method"]) == ("linear_probe", "simclr")]
    seen = {row["row"] for row in table.to_pylist()}
    right = [row["label"] == row["predicted"] for row in ours_first if row["row"] not in seen]
    assert len(right) == 31
    assert f"reached {100 * np.mean(right):.1f}% accuracy on the 31 labelled test rows that it had not seen" in text
    assert "test/dark/copied.bmp" in html
    assert made["report"].json("verdict.json")["details"][0].startswith("2 of 33 test rows are in the data")


def test_the_same_data_under_another_split_is_a_leak(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    """Nobody sees that from the outside: the data was split, only not as it was for pretraining."""
    sections = {"split": {**SPLIT, "seed": 5}, "clean": {"near_duplicates": None}, "transfer": {"strategies": []}}
    given = recipe(ours["pretrain"].fingerprint, tmp_path / "unlabelled", **sections)
    made = chain(ours["split"].store, given, until="report")
    train = {row["row"] for row in ours["split"].table(SPLITS_FILE).to_pylist() if row["split"] == "train"}
    test = {row["row"] for row in made["split"].table(SPLITS_FILE).to_pylist() if row["split"] == "test"}
    assert set(made["contamination"].table("contamination.parquet")["row"].to_pylist()) == train & test
    assert made["contamination"].measured["equal"] == len(train & test) > 0
    assert made["contamination"].measured["near_duplicates"] is None


def test_an_encoder_of_another_store_is_checked_there(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    other = Store.open(str(tmp_path / "other"))
    given = recipe(ours["pretrain"].location, tmp_path / "unlabelled", transfer={"strategies": []})
    made = chain(other, given, until="contamination")
    assert made["contamination"].measured["equal"] > 0
    ours["split"].store.delete(f"objects/{ours['split'].fingerprint}")
    again = chain(Store.open(str(tmp_path / "third")), given, until="contamination")["contamination"].measured
    assert again["checked"] == []
    assert "was pretrained on is not to be found: there is no artifact" in again["unknown"][0]


def test_what_is_at_hand_is_part_of_what_was_compared(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    """The artifact is never one that was made when more, or less, of the encoder's data was there."""
    store, split = ours["split"].store, ours["split"].fingerprint
    sections = {"transfer": {"strategies": []}, "split": {**SPLIT, "seed": 5}}
    given = recipe(ours["pretrain"].fingerprint, tmp_path / "unlabelled", **sections)
    planned = build_recipe({"name": "test", "store": store.uri, **given}, where="test")
    first = chain(store, given, until="contamination")["contamination"]
    assert first.measured["equal"] > 0
    place = Path(store.root) / "objects" / split
    place.rename(tmp_path / "gone")
    without = chain(store, given, until="contamination")["contamination"]
    assert without.fingerprint != first.fingerprint
    assert "is not to be found: there is no artifact" in without.measured["unknown"][0]
    assert {one.name: one.status for one in make_plan(planned, store)}["contamination"] == "cached"
    (tmp_path / "gone").rename(place)
    assert chain(store, given, until="contamination")["contamination"] == first
    assert {one.name: one.status for one in make_plan(planned, store)}["contamination"] == "cached"


def test_data_that_goes_after_the_plan_is_noticed(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    store = ours["split"].store
    given = recipe(ours["pretrain"].fingerprint, tmp_path / "unlabelled", transfer={"strategies": []})
    made = chain(store, given, until="adopt") | chain(store, given, until="split")
    stage = contamination.STAGE
    fingerprint = stage.fingerprint(stage.config(), {name: made[name].fingerprint for name in stage.inputs}, "planned")
    with pytest.raises(StageError, match="came or went after the run was planned"):
        materialize(store, stage, stage.config(), made, fingerprint=fingerprint)


def test_a_report_holds_what_is_at_hand_of_encoders_that_came_into_its_run(
    ours: dict[str, Artifact], tmp_path: Path
) -> None:
    store = ours["split"].store

    def asked(first: str | None, *further: str) -> str | None:
        transferred = SimpleNamespace(encoders=further, strategies=("knn",))
        configs = {"pretrain": SimpleNamespace(init_from=first), "transfer": transferred}
        assert report.STAGE.beside
        return report.STAGE.beside(configs, {}, store.uri)

    encoder = ours["pretrain"].fingerprint
    assert asked(None) is asked(encoder) is asked(None, ours["pretrain"].location) is None
    other = asked("e" * 64)
    assert other
    (Path(store.root) / "objects" / ours["clean"].fingerprint).rename(tmp_path / "gone")
    assert asked(None) is None
    assert asked(encoder) == asked(None, encoder) not in (None, other)


def test_what_an_encoder_began_from_is_checked_too(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    from ssl_tasks.cleaning.contamination import Seen, pretrained_on

    encoder = ours["pretrain"]
    manifest = encoder.manifest
    second = encoder.store.commit(
        manifest.model_copy(
            update={
                "fingerprint": "b" * 64,
                "files": {},
                "parents": {**manifest.parents, "init_from": encoder.fingerprint},
            }
        )
    )
    found = list(pretrained_on(second))
    assert [seen.encoder.fingerprint for seen in found if isinstance(seen, Seen)] == ["b" * 64, encoder.fingerprint]


def test_a_run_that_began_from_an_encoder_is_held_against_its_data(
    ours: dict[str, Artifact], tmp_path: Path, chain: Any
) -> None:
    store = ours["split"].store
    split = {**SPLIT, "seed": 5}
    sections = {"ingest": {"path": str(tmp_path / "unlabelled")}, "normalize": {"size": 16}, "split": split}
    made = chain(store, sections)
    shutil.copytree(Path(ours["pretrain"].location), f"{store.root}/objects/{'d' * 64}")
    store.commit(ours["pretrain"].manifest.model_copy(update={"fingerprint": "d" * 64}))
    manifest = pretrained(made, "test_resnet").manifest
    made["pretrain"] = store.commit(
        manifest.model_copy(update={"parents": {**manifest.parents, "init_from": "d" * 64}})
    )
    for stage in (embed.STAGE, transfer.STAGE, report.STAGE):
        config = stage.config.model_validate({"strategies": []} if stage is transfer.STAGE else {})
        fingerprint = stage.fingerprint(config, {name: made[name].fingerprint for name in stage.inputs})
        made[stage.name] = materialize(store, stage, config, made, fingerprint=fingerprint).artifact
    text = " ".join(made["report"].path("report.html").read_text().split())
    assert "This run&#39;s own training used the train rows of this data set. Duplicates were joined" in text
    assert "of this data set alone" not in text
    assert "test rows were seen in pretraining: " in text
    assert (
        "test rows are in the data that the encoder was pretrained on"
        in made["report"].json("verdict.json")["details"][0]
    )
    assert "<h2>Pretraining</h2>" in text


def test_a_timm_model_on_data_of_a_folder(store: Store, tmp_path: Path, chain: Any) -> None:
    timm_file(tmp_path / "w.safetensors", "test_vit")
    given = recipe(f"timm:test_vit@{tmp_path / 'w.safetensors'}", write(tmp_path / "new", range(40)))
    made = chain(store, {**given, "transfer": {**QUICK, "strategies": ["knn"]}}, until="report")
    assert made["normalize"].measured["shape"] == [160, 160, 3]
    assert made["normalize"].json("stats.json")["mean"] == [0.5, 0.5, 0.5]
    assert made["transfer"].measured["method"] == "timm:test_vit"
    assert made["contamination"].measured["unknown"] == ["nobody here knows what timm:test_vit was pretrained on"]
    text = " ".join(made["report"].path("report.html").read_text().split())
    assert "Not checked: nobody here knows what timm:test_vit was pretrained on." in text
    assert "No test row was seen" not in text
    assert str(tmp_path / "w.safetensors") in text
    embedded, untrained = (
        np.array(made["embed"].table(f"embeddings/{name}.parquet")["embedding"].to_pylist())
        for name in ("pretrained", "random_init")
    )
    assert np.abs(embedded - untrained).max() > 0.1


def test_files_that_moved_make_the_same_artifact(store: Store, tmp_path: Path, chain: Any) -> None:
    timm_file(tmp_path / "w.safetensors")
    first = chain(store, {"adopt": {"encoder": f"timm:test_resnet@{tmp_path}/w.safetensors"}}, until="adopt")["adopt"]
    (tmp_path / "w.safetensors").rename(tmp_path / "v.safetensors")
    again = chain(store, {"adopt": {"encoder": f"timm:test_resnet@{tmp_path}/v.safetensors"}}, until="adopt")["adopt"]
    assert first == again
    other = {"adopt": {"encoder": f"timm:test_resnet@{tmp_path}/v.safetensors", "size": 64}}
    assert chain(store, other, until="adopt")["adopt"] != first


def test_an_adopted_encoder_can_be_adopted_again(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    store = ours["split"].store
    first = chain(store, {"adopt": {"encoder": ours["pretrain"].fingerprint}}, until="adopt")["adopt"]
    given = recipe(first.fingerprint, tmp_path / "unlabelled", transfer={"strategies": []})
    found = chain(store, given, until="contamination")["contamination"].measured
    assert [one["encoder"] for one in found["checked"]] == [ours["pretrain"].fingerprint]


def test_an_encoder_from_elsewhere_stays_one_when_it_is_adopted_again(store: Store, tmp_path: Path, chain: Any) -> None:
    timm_file(tmp_path / "w.safetensors")
    first = chain(store, {"adopt": {"encoder": f"timm:test_resnet@{tmp_path}/w.safetensors"}}, until="adopt")["adopt"]
    again = chain(store, {"adopt": {"encoder": first.fingerprint}}, until="adopt")["adopt"]
    assert again.fingerprint != first.fingerprint
    told = dict(facts(again, again.json("encoder.json")))
    assert told["Read from"] == str(tmp_path / "w.safetensors")
    assert "Pretrained by" not in told
    assert list(pretrained_on(again)) == ["nobody here knows what timm:test_resnet was pretrained on"]


@pytest.mark.parametrize("of", ["split", "nothing"])
def test_what_is_no_encoder_is_refused(ours: dict[str, Artifact], chain: Any, of: str) -> None:
    reference = ours["split"].fingerprint if of == "split" else "0" * 64
    message = "is an artifact of split, not of pretrain" if of == "split" else "there is no artifact 000"
    with pytest.raises(RequestError, match=message):
        chain(ours["split"].store, {"adopt": {"encoder": reference}}, until="adopt")


def test_images_that_the_encoders_normalization_does_not_fit_are_refused(
    ours: dict[str, Artifact], tmp_path: Path, chain: Any
) -> None:
    folder = tmp_path / "deep"
    random = np.random.default_rng(0)
    for number in range(20):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        np.save(folder / "ab"[number % 2] / f"{number}.npy", random.random((16, 16, 4), dtype=np.float32))
    listing = "\n".join(
        ["path,label", *(f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.rglob("*.npy")))]
    )
    (folder / "list.csv").write_text(listing)
    with pytest.raises(RequestError) as caught:
        chain(ours["split"].store, recipe(ours["pretrain"].fingerprint, folder / "list.csv"), until="normalize")
    assert "the encoder takes images of 3 channels of uint8" in str(caught.value)
    assert "have 4 of float32" in str(caught.value)


def test_grey_images_become_what_the_encoder_takes(ours: dict[str, Artifact], tmp_path: Path, chain: Any) -> None:
    for seed in range(30):
        folder = tmp_path / "grey" / "ab"[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(seed, 20).convert("L").save(folder / f"{seed}.png")
    made = chain(ours["split"].store, recipe(ours["pretrain"].fingerprint, tmp_path / "grey"), until="normalize")
    payload = Shards.open(made["normalize"]).take(np.arange(30))
    assert payload.shape == (30, 16, 16, 3)
    assert np.array_equal(payload[..., 0], payload[..., 2])


@pytest.mark.parametrize("input", ["standard", "unit", "symmetric"])
def test_pixels_in_a_part_of_the_encoders_range_are_told(input: str) -> None:
    from ssl_tasks.adoption.agreement import warnings
    from ssl_tasks.modalities import modality

    random = np.random.default_rng(0)
    seen = random.integers(0, 65536, (64, 8, 8, 1), dtype=np.uint16)
    stats = {
        "modality": "image",
        "shape": [8, 8, 1],
        "depth": "uint16",
        "input": input,
        "low": [0.0],
        "high": [65535.0],
    }
    stats |= {"mean": [float(seen.mean() / 65535)], "std": [float(seen.std() / 65535)]}
    assert warnings(seen, modality("image"), stats) == []
    (warning,) = warnings((seen >> 5).astype(np.uint16), modality("image"), stats)  # 11 bits of 16
    assert "channel 1 varies by 3.1%" in warning


@pytest.mark.parametrize("key", ["size", "mean"])
def test_one_of_ours_brings_its_own(ours: dict[str, Artifact], chain: Any, key: str) -> None:
    value: Any = 64 if key == "size" else [0.5, 0.5, 0.5]
    with pytest.raises(RequestError, match=f"{key}: one of ours brings its own"):
        chain(ours["split"].store, {"adopt": {"encoder": ours["pretrain"].fingerprint, key: value}}, until="adopt")
