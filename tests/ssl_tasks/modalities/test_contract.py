"""One contract over every modality: what the stages ask of it. A new one is covered by a source in `SOURCES`."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from ssl_tasks import modalities
from ssl_tasks.randomness import row_keys
from ssl_tasks.shards import tensor_array
from ssl_tasks.sources.detect import open_source
from ssl_tasks.stages.augment import AugmentConfig, resolve
from ssl_tasks.stages.clean import CleanConfig
from ssl_tasks.stages.ingest import IngestConfig
from ssl_tasks.stages.normalize import LikeConfig, NormalizeConfig


def write_images(root: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        folder = root / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        size = (12 + number % 3, 10)
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (root / "class0" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")


def write_table(root: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["age,colour,height,kind"]
    for number in range(40):
        age = "" if number == 3 else f"{random.normal(40, 10):.3f}"
        lines.append(f"{age},{'red' if number % 3 else 'blue'},{random.normal(170, 9):.2f},{number % 2}")
    lines.append("old,red,170,1")
    (root / "people.csv").write_text("\n".join(lines) + "\n")


SOURCES = {
    "image": (write_images, {}, NormalizeConfig(size=8), "unreadable"),
    "tabular": (write_table, {"label_column": "kind"}, NormalizeConfig(modality="tabular"), "not_a_number"),
}


@pytest.fixture(scope="module", params=sorted(modalities.MODALITIES))
def read(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    write, options, normalize, reason = SOURCES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    write(root)
    config = IngestConfig(path=str(root), modality=request.param, **options)
    modality = modalities.modality(request.param)
    features = request.param in modalities.OF_FEATURES
    pairs = list(modality.read(open_source(config, modalities.SUFFIXES[request.param], features=features), config))
    rows, raw = pa.concat_tables([r for r, _ in pairs]), pa.concat_tables([r for _, r in pairs])
    checked = modality.check(raw, CleanConfig(modality=request.param))
    good = raw.filter(pa.array([reason is None for reason in checked.reasons]))
    measures = None if checked.measures is None else iter([checked.measures])
    vocabulary = modality.learn(iter([good]), measures, normalize)
    payload = modality.transform(good, vocabulary, normalize)
    stats = modality.fit(iter([payload]), vocabulary, normalize)
    return SimpleNamespace(**locals())


def test_every_row_has_source_content_and_label(read: SimpleNamespace) -> None:
    assert read.rows.num_rows == read.raw.num_rows == 41
    assert len(set(read.rows["source"].to_pylist())) == 41
    assert len(set(read.rows["content_id"].to_pylist())) == 41
    assert read.rows["label"].null_count == 0


def test_exactly_the_broken_row_is_found_and_named(read: SimpleNamespace) -> None:
    broken = [place for place, reason in enumerate(read.checked.reasons) if reason]
    assert [read.checked.reasons[place] for place in broken] == [read.reason]
    assert read.checked.details[broken[0]]
    assert read.checked.oddities == [None] * 41


def test_keys_measures_and_prints_are_of_the_usable_rows(read: SimpleNamespace) -> None:
    checked = read.checked
    assert all(len(key) == 16 for key in checked.keys if key is not None)
    if checked.measures is not None:
        assert checked.measures.num_rows == 40
        assert all(column.null_count == 0 for column in checked.measures.columns)
    if checked.prints is not None:
        assert len(checked.prints) == len(checked.signatures) == 40
        np.testing.assert_allclose(np.linalg.norm(checked.prints.astype(np.float64), axis=1), 1, atol=2e-3)


def test_thumbnails_are_small_jpegs_or_nothing(read: SimpleNamespace) -> None:
    made = read.modality.thumbnails(read.raw)
    assert len(made) == 41
    for data in made:
        if data is not None:
            with Image.open(io.BytesIO(data)) as image:
                assert image.format == "JPEG"
                assert max(image.size) <= 96


def test_the_payload_is_dense_and_of_the_stated_shape(read: SimpleNamespace) -> None:
    assert read.payload.shape == (40, *read.stats["shape"])
    assert read.payload.dtype in (np.uint8, np.float32)
    assert np.array_equal(tensor_array(read.payload).to_numpy_ndarray(), read.payload, equal_nan=True)


def test_statistics_are_enough_to_store_others_likewise(read: SimpleNamespace) -> None:
    measures = None if read.checked.measures is None else iter([read.checked.measures])
    stats = json.loads(json.dumps(read.stats))  # as they travel with an encoder
    vocabulary = read.modality.recall(stats, iter([read.good]), measures)
    again = read.modality.transform(read.good, vocabulary, LikeConfig(modality=read.modality.name))
    assert np.array_equal(again, read.payload, equal_nan=True)


def test_inputs_are_standardized_on_what_was_fitted(read: SimpleNamespace) -> None:
    inputs = read.modality.to_input(torch.from_numpy(read.payload), read.stats)
    assert inputs.shape[1:] == read.modality.input_shape(read.stats)
    channels = inputs.transpose(0, 1).flatten(1)
    assert torch.isfinite(inputs).all()
    assert channels.mean(1).abs().max() < 1e-4
    assert (channels.std(1) - 1).abs().max() < 0.1


def test_statistics_do_not_depend_on_how_rows_are_batched(read: SimpleNamespace) -> None:
    parts = [read.payload[:1], read.payload[1:17], read.payload[17:]]
    again = read.modality.fit(iter(parts), read.vocabulary, read.normalize)
    for name in ("mean", "std"):
        np.testing.assert_allclose(again[name], read.stats[name], rtol=1e-12)


def test_a_view_is_drawn_from_its_key_alone(read: SimpleNamespace) -> None:
    drawn = {"rotate_degrees": 20, "blur_probability": 0.5} if read.modality.name == "image" else {}
    config = AugmentConfig.model_validate({**drawn, "modality": read.modality.name})
    policy = resolve(config, read.stats, read.payload.dtype).policy("augment")
    payload, keys = torch.from_numpy(read.payload), row_keys(0, 0, torch.arange(40))
    whole = read.modality.augment(payload, policy, keys)
    assert whole.dtype == payload.dtype
    assert whole.shape == payload.shape
    picked = torch.tensor([7, 3])
    some = read.modality.augment(payload[picked], policy, keys[picked])
    assert torch.equal(torch.nan_to_num(whole[picked].float()), torch.nan_to_num(some.float()))


def test_a_listed_version_and_suffixes_exist(read: SimpleNamespace) -> None:
    assert modalities.VERSIONS[read.modality.name] >= 1
    assert modalities.SUFFIXES[read.modality.name]
