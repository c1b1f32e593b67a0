"""`transfer.encoders`: runs become fingerprints, and what cannot be combined is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_adopted import picture, pretrained
from tests_planted import commit

from flows.plan import make_plan
from flows.preflight import CHECKS, check_request
from flows.preflight.networks import require_strategies_of_encoder
from flows.recipe import Recipe, load_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.encoder import EncoderInfo
from ssl_tasks.errors import RequestError
from ssl_tasks.randomness import row_keys
from ssl_tasks.store import Store
from ssl_tasks.store.runs import RunRecord, StageRecord, save_run
from ssl_tasks.transfer.context import make_context
from ssl_tasks.transfer.further import Further
from ssl_tasks.transfer.options import Options

FINGERPRINT = "ab" * 32
RUN = "20261128-101112-digits-12ef"
INFO: dict[str, Any] = {
    "method": "byol",
    "backbone": "test_resnet",
    "stem": "auto",
    "modality": "image",
    "input_shape": [1, 8, 8],
    "stats": {"mean": [0.5]},
    "num_features": 128,
    "steps": 3,
    "precision": "fp32",
    "seed": 0,
}


def recipe(store: Store, *encoders: str, strategy: str = "concatenate") -> Recipe:
    named = ", ".join(f"'{encoder}'" for encoder in encoders)
    return load_recipe("digits", [f"transfer.strategies=[{strategy}]", f"transfer.encoders=[{named}]"], store=store.uri)


def encoder(store: Store, **changes: Any) -> str:
    info, data, name = INFO | changes, [], str(changes)
    for stage in ("ingest", "clean", "assign", "split"):
        data = [commit(store, stage, lambda out: out.json("nothing.json", {}), 9, data, name=name)]
    return commit(store, "pretrain", lambda out: out.json("encoder.json", info), 9, data, name=name).fingerprint


def add_run(store: Store, status: Any) -> None:
    stage = StageRecord(name="pretrain", status=status, fingerprint=FINGERPRINT, reason="")
    save_run(store, RunRecord(run_id=RUN, name="digits", recipe={}, state="failed", stages=[stage]))


@pytest.mark.parametrize("status", ["ran", "cached"])
@pytest.mark.parametrize("reference", [RUN, RUN[:-3]])
def test_a_run_stands_for_its_encoder(store: Store, reference: str, status: str) -> None:
    add_run(store, status)
    made = recipe(store, reference)
    assert made.to_dict()["transfer"]["encoders"] == [FINGERPRINT]
    plain = recipe(store, FINGERPRINT)
    fingerprints = [[entry.fingerprint for entry in make_plan(one, store)] for one in (made, plain)]
    assert fingerprints[0] == fingerprints[1]


def test_two_names_of_one_encoder_are_refused(store: Store, tmp_path: Path) -> None:
    add_run(store, "ran")
    for other in (FINGERPRINT, RUN[:-3], f"{tmp_path}/elsewhere/objects/{FINGERPRINT}"):
        with pytest.raises(RequestError, match=rf"transfer\.encoders: {RUN} and .* are the same encoder; name each"):
            recipe(store, RUN, other)


def test_fingerprints_and_uris_stay(store: Store, tmp_path: Path) -> None:
    uri = f"{tmp_path}/elsewhere/objects/{FINGERPRINT}"
    assert recipe(store, uri).to_dict()["transfer"]["encoders"] == [uri]


def test_runs_that_are_not_there_or_have_no_encoder_are_refused(store: Store) -> None:
    with pytest.raises(RequestError, match=r"transfer\.encoders: run nothing: not in the store"):
        recipe(store, "nothing")
    add_run(store, "failed")
    with pytest.raises(RequestError, match=rf"transfer\.encoders: run {RUN} has trained no encoder; it is failed"):
        recipe(store, RUN)


def check(made: Recipe, store: Store) -> None:
    check_request(made, [entry for entry in make_plan(made, store) if entry.name == "transfer"])


def test_missing_artifacts_and_other_architectures_are_refused_before_anything_runs(store: Store) -> None:
    with pytest.raises(RequestError, match=r"transfer\.encoders: there is no artifact"):
        check(recipe(store, FINGERPRINT), store)
    check(recipe(store, encoder(store), strategy="greedy_soup"), store)
    vit = encoder(store, backbone="test_vit", method="mae")
    check(recipe(store, vit), store)  # features of another width can stand beside the run's own
    with pytest.raises(
        RequestError, match=r"transfer\.encoders: mae \w{8} is no network of the run's own architecture"
    ):
        check(recipe(store, vit, strategy="uniform_soup"), store)


def test_views_of_another_size_than_an_adopted_encoder_takes_are_refused(store: Store) -> None:
    info = INFO | {"backbone": "rbm:16", "input_shape": [1, 8, 8]}
    adopted: Artifact = commit(store, "adopt", lambda out: out.json("encoder.json", info), 9)

    def ask(size: int | None) -> None:
        made = load_recipe("digits", ["transfer.strategies=[greedy_soup]", f"augment.size={size or 'null'}"])
        require_strategies_of_encoder(made, adopted)

    ask(None)
    ask(8)
    with pytest.raises(RequestError, match=r"augment\.size: rbm:16 takes images of 8 x 8 px"):
        ask(6)


def test_a_further_encoder_takes_views_of_another_size(store: Store, chain: Any, tmp_path: Path) -> None:
    for seed in range(24):
        folder = tmp_path / "photos" / ("bright" if seed % 2 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        picture(seed, 16).save(folder / f"{seed:02d}.png")
    sections = {"ingest": {"path": str(tmp_path / "photos")}, "clean": {"min_side": 4}}
    data = chain(store, {**sections, "normalize": {"size": 16}, "augment": {"size": 8}})
    own = pretrained(data, "vit_tiny_patch16_224")  # of one size, unless it is told of others
    others = [Further(own, EncoderInfo.model_validate(own.json("encoder.json")))]
    cpu = torch.device("cpu")
    context = make_context(Options(), data["normalize"], own, np.arange(4), [], cpu, None, others)
    rows = np.arange(4)
    views = context.to_input(context.augment(context.payload(rows), row_keys(0, 0, torch.from_numpy(rows))))
    assert views.shape == (4, 3, 8, 8)
    network = next(iter(context.further.values()))["simclr"]()
    assert network(views).shape == (4, own.json("encoder.json")["num_features"])


def test_another_normalization_is_refused_once_the_data_is_normalized(store: Store) -> None:
    checks = [entry.check for entry in CHECKS if (entry.after, entry.stage) == ("normalize", "transfer")]

    def after(mean: float) -> None:
        measured = {"shape": [8, 8, 1]}
        stats = {"mean": [mean]}
        normalized: Artifact = commit(
            store, "normalize", lambda out: out.json("stats.json", stats), 9, measured=measured, name=str(mean)
        )
        for each in checks:
            each(recipe(store, encoder(store)), normalized)

    after(0.5)
    with pytest.raises(RequestError, match=r"transfer\.encoders: byol \w{8} .* normalized otherwise \(mean differ\)"):
        after(0.25)
