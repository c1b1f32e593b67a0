"""The loop on real artifacts: the same for 1 and 2 workers, exact on resume, stopped when it dies.

Runs without Ray: the feed is `make_views` called in the same process.
"""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests_loop import make_job, train

from ssl_tasks import methods
from ssl_tasks.errors import RequestError, StageError
from ssl_tasks.training import choice, scalars
from ssl_tasks.training.job import DONE_FILE, Job, checkpoint_steps
from ssl_tasks.training.results import write_pause
from ssl_tasks.training.setup import build_method
from ssl_tasks.training.views import make_views, to_batch

RECIPES: dict[str, dict[str, Any]] = {
    "simclr": {"method": "simclr", "backbone": "test_resnet"},
    "moco": {"method": {"name": "moco", "queue_size": 50}, "backbone": "test_resnet"},
    "dae": {"method": "dae", "backbone": "test_resnet"},
    "scarf": {"method": "scarf", "backbone": "mlp:32x2", "modality": "tabular"},
    "ibot": {
        "method": {"name": "ibot", "num_local": 1, "out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8},
        "backbone": "test_vit",
    },
    "combined": {
        "method": {
            "name": "combined",
            "objectives": {"moco": {"queue_size": 50}, "rotation": {"loss_weight": 0.5}, "byol": {"hidden_dim": 16}},
        },
        "backbone": "test_resnet",
    },
    "aae": {"method": {"name": "aae", "feature_weight": 0.1}, "backbone": "mlp:32x2", "modality": "tabular"},
}


def simclr_fp64() -> dict[str, Any]:
    return train(make_job(**RECIPES["simclr"], precision="fp64")).history


SGD = {"name": "sgd", "lr": 0.01, "momentum": 0.9}


def scarf_fp32() -> dict[str, Any]:
    return train(make_job(**RECIPES["scarf"], optimizer=SGD)).history


def dae_fp32() -> dict[str, Any]:
    return train(make_job(**{**RECIPES["dae"], "batch_size": 256}, optimizer={**SGD, "lr": 0.005})).history


def simclr_fp32() -> dict[str, Any]:
    method = {"name": "simclr", "temperature": 0.5}
    slow = {"name": "sgd", "lr": 0.002, "momentum": 0.0}
    options = {**RECIPES["simclr"], "method": method, "batch_size": 256}
    return train(make_job(**options, optimizer=slow)).history


def simclr_vit_fp32() -> dict[str, Any]:
    """Without batch norm in the backbone. Layer norm of an all but constant patch (black, between digits) amplifies the
    last bits too: inputs that differ by 1e-7 move the losses by 1e-5 at this learning rate and by 1e-2 at ten times it.
    """
    method = {"name": "simclr", "temperature": 0.5}
    options = {**RECIPES["simclr"], "method": method, "backbone": "test_vit", "stem": "standard"}
    return train(make_job(size=32, **options, optimizer={**SGD, "lr": 0.001})).history


def dae_fp64() -> dict[str, Any]:
    return train(make_job(**RECIPES["dae"], precision="fp64")).history


def scarf_fp64() -> dict[str, Any]:
    return train(make_job(**RECIPES["scarf"], precision="fp64")).history


@pytest.mark.parametrize(
    ("run", "tolerance"),
    [
        (simclr_fp64, 1e-8),
        (dae_fp64, 1e-8),
        (scarf_fp64, 1e-8),
        (scarf_fp32, 1e-4),
        (simclr_vit_fp32, 1e-4),
        (dae_fp32, 1e-4),
        (simclr_fp32, 1e-3),  # batch norm over few pixels amplifies the last bits; the float64 curves agree
    ],
)
def test_losses_are_equal_for_one_and_two_workers(run: Any, tolerance: float, run_ranks: Any) -> None:
    alone = run()
    for together in run_ranks(run):
        assert len(together["loss"]) == 50
        np.testing.assert_allclose(together["loss"], alone["loss"], rtol=0, atol=tolerance)
    assert np.mean(alone["loss"][-10:]) < np.mean(alone["loss"][:10])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_run_that_was_stopped_in_an_epoch_ends_with_the_same_bits(name: str) -> None:
    options = {**RECIPES[name], "checkpoint_every_steps": 7, "ema_decay": 0.9, "max_steps": 20}
    whole = train(make_job(**options))
    job = make_job(**options)
    train(job, stop=17)  # in the second or third epoch, three steps after a checkpoint
    again = train(job)
    assert again.resumed_at == 14
    assert again.history == whole.history
    assert repr(again.health) == repr(whole.health)  # by repr, because a probe without labels is NaN
    for mine, theirs in ((again.method, whole.method), (again.ema, whole.ema)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value), key


def test_a_training_that_paused_at_a_health_check_goes_on_with_the_same_bits() -> None:
    options = {**RECIPES["simclr"], "max_steps": 12, "health_checks": 4}
    whole = train(make_job(**options))
    job = make_job(**options)
    assert job.health_steps == [3, 6, 9, 12]
    paused = train(replace(job, until=6))
    assert (paused.step, paused.health["step"]) == (6, [3.0, 6.0])
    write_pause(paused)
    done = job.out.store.read_json(f"{job.partial}/{DONE_FILE}")
    assert done["entries"] == {}  # no artifact yet
    assert (done["measured"]["step"], done["measured"]["rankme"]) == (6.0, whole.health["rankme"][1])
    again = train(job)
    assert again.resumed_at == 6
    assert again.history == whole.history  # the learning rates too: those of the whole schedule
    assert again.health == whole.health
    for key, value in whole.method.state_dict().items():
        assert torch.equal(again.method.state_dict()[key], value), key


def test_accumulated_parts_add_up_to_the_batch() -> None:
    options = {**RECIPES["scarf"], "method": "dae", "precision": "fp64", "max_steps": 10}
    whole, parts = train(make_job(**options)), train(make_job(**options, accumulate=4))
    np.testing.assert_allclose(parts.history["loss"], whole.history["loss"], atol=1e-10)
    np.testing.assert_allclose(parts.history["grad_norm"], whole.history["grad_norm"], atol=1e-10)


@pytest.mark.parametrize("name", ["simclr", "dae"])
def test_a_batch_that_is_coupled_is_not_accumulated(name: str) -> None:
    with pytest.raises(RequestError, match=r"pretrain\.accumulate"):
        train(make_job(**RECIPES[name], accumulate=2))


def test_rows_that_are_embedded_before_an_epoch_count_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the watch on a training would end one of many rows, whose epochs begin with an hour of it."""
    monkeypatch.setattr("ssl_tasks.training.loop.TELL_SECONDS", 0.0)
    told: list[dict[str, Any]] = []
    job = make_job(method={"name": "deepcluster", "num_clusters": 4}, backbone="test_resnet", max_steps=1)
    train(job, told=told)
    rows = len(job.plan.positions)
    assert told[:2] == [{"step": 0, "note": f"embedding {seen:,} of {rows:,} rows"} for seen in (1024, rows)]


@pytest.mark.parametrize("later", [False, True])
def test_nan_stops_with_advice_before_it_is_saved(later: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalars, "reads_later", lambda device: later)
    job = make_job(**RECIPES["dae"], optimizer={"name": "sgd", "lr": 1e12}, checkpoint_every_steps=1)
    with pytest.raises(StageError, match=r"loss is (nan|inf).*pretrain\.optimizer\.lr") as caught:
        train(job)
    step = int(re.findall(r"at step (\d+)", str(caught.value))[0])
    assert [kept for kept in checkpoint_steps(job.out.store, job.partial) if kept > step] == []


def test_scalars_that_are_read_a_step_later_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, also where a run stops between two checkpoints and goes on."""
    options = {**RECIPES["simclr"], "checkpoint_every_steps": 7, "health_checks": 3, "max_steps": 20}
    whole = train(make_job(**options))
    monkeypatch.setattr(scalars, "reads_later", lambda device: True)
    job = make_job(**options)
    train(job, stop=17)
    again = train(job)
    assert again.resumed_at == 14
    assert again.history == whole.history
    assert again.health == whole.health


def test_collapse_stops_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(**{**RECIPES["dae"], "health_checks": 10})
    spec = methods.spec("dae")

    class Collapsed(spec.method):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            inner = self.backbone.forward
            self.backbone.forward = lambda x: inner(x) * 0 + 1

    monkeypatch.setattr(methods, "spec", lambda name: replace(spec, method=Collapsed))
    with pytest.raises(StageError, match="collapsed"):
        train(job)


SIMSIAM = {
    "backbone": "test_resnet",
    "batch_size": 128,
    "health_checks": 12,
    "optimizer": {"name": "sgd", "lr": 1.0, "warmup_fraction": 0.0, "weight_decay": 1e-3},
}


def simsiam(max_steps: int, stop_gradient: bool) -> Job:
    method = {"name": "simsiam", "out_dim": 8, "predictor_dim": 4, "stop_gradient": stop_gradient}
    return make_job(**SIMSIAM, method=method, max_steps=max_steps)


def test_projections_that_collapse_stop_the_run_while_its_features_look_healthy() -> None:
    """SimSiam without its stopped gradient (arXiv 2011.10566, figure 2)."""
    job = simsiam(60, stop_gradient=False)
    with pytest.raises(StageError, match=r"projections have collapsed .*projection_std 0\.\d+ .*stop_gradient"):
        train(job)


def test_with_its_stopped_gradient_such_a_run_goes_to_its_end() -> None:
    history = train(simsiam(24, stop_gradient=True)).history["projection_std"]
    assert len(history) == 24
    assert min(history) > 0.6


def test_a_resumed_run_counts_collapsed_checks_on() -> None:
    job = make_job(**{**RECIPES["simclr"], "checkpoint_every_steps": 5, "max_steps": 10})
    trainer = train(job, stop=5)
    trainer.watchdog.num_bad_projections = 2
    trainer.checkpoints.save(5, trainer.state())
    trainer.checkpoints.wait()
    again = train(job)
    assert again.resumed_at == 5
    assert again.watchdog.num_bad_projections == 2  # SimCLR has no projections to check


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(RequestError, match=r"pretrain\.batch_size: 4096 is larger than the 1258 train rows"):
        train(make_job(**{**RECIPES["simclr"], "batch_size": 4096}))


def test_methods_are_told_where_train_rows_lie_and_how_they_were_normalized(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(methods.spec("simclr").method, "prepare", lambda method, stats: seen.append(stats))
    job = make_job(**RECIPES["simclr"])
    build_method(job)
    (stats,) = seen
    assert stats.num_rows == len(job.plan.positions)
    assert stats.positions.tolist() == job.plan.positions.tolist() != list(range(stats.num_rows))
    assert stats.normalization == job.stats


def test_calibration_is_kept_for_the_resumed_run() -> None:
    job = make_job(**{**RECIPES["simclr"], "layout": "auto", "max_steps": 2})
    first = train(job).choice
    assert set(first["seconds"]) == {"contiguous", "channels_last"}
    job.out.store.write_json(f"{job.partial}/choice.json", {**first, "seconds": {"kept": 1.0}})
    assert train(job).choice["seconds"] == {"kept": 1.0}


@pytest.mark.parametrize(("seconds", "layout"), [(0.95, "contiguous"), (0.85, "channels_last")])
def test_another_layout_is_taken_only_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: float, layout: str
) -> None:
    times = {"contiguous": 1.0, "channels_last": seconds}
    monkeypatch.setattr(choice, "_time_steps", lambda *arguments, compiled: times[arguments[3]])
    assert train(make_job(**{**RECIPES["simclr"], "layout": "auto", "max_steps": 1})).choice["layout"] == layout


def test_compiling_that_ends_the_process_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def dies(*arguments: Any, compiled: bool) -> float:
        tried.append(compiled)
        if compiled:
            raise KeyboardInterrupt  # as little to be caught as SIGABRT
        return 1.0

    monkeypatch.setattr(choice, "COMPILE_ABOVE_SECONDS", 0.0)
    monkeypatch.setattr(choice, "_time_steps", dies)
    job = make_job(**{**RECIPES["simclr"], "compile": "auto", "max_steps": 2})
    with pytest.raises(KeyboardInterrupt):
        train(job)
    chosen = train(job).choice
    assert tried == [False, True, False]
    assert chosen["compiled"] is False
    assert "not compiled: the process ended while it was tried" in chosen["seconds"]


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    job = make_job(**RECIPES["simclr"])
    whole = make_views(job, 41, 0, 1)
    halves = [make_views(job, 41, rank, 2) for rank in range(2)]
    for name, values in whole.items():
        assert np.array_equal(np.concatenate([half[name] for half in halves]), values)
    assert not np.array_equal(whole["view0"], whole["view1"])
    assert whole["view0"].dtype == np.uint8


MULTI_CROP = ("augment", "augment", "local", "plain", "local")


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_multi_crop_views_have_sizes_of_their_own(augment_on: str) -> None:
    job = replace(make_job(**RECIPES["simclr"], augment_on=augment_on), view_names=MULTI_CROP)
    batch = to_batch(make_views(job, 3, 0, 1), job, job.stats, torch.device("cpu"))
    assert [tuple(view.shape) for view in batch.views] == [(32, 1, side, side) for side in (8, 8, 4, 8, 4)]
    for first, second in ((0, 1), (2, 4)):
        assert not torch.equal(batch.views[first], batch.views[second])
    payload = torch.from_numpy(job.shards.take(batch.positions.numpy()))
    assert torch.equal(batch.views[3], job.modality.to_input(payload, job.stats))


@pytest.mark.parametrize("rank", [0, 1])
def test_views_made_on_the_device_are_those_that_the_feed_makes(rank: int) -> None:
    ours, theirs = (
        replace(make_job(**RECIPES["simclr"], augment_on=where), view_names=MULTI_CROP)
        for where in ("workers", "device")
    )
    made = make_views(theirs, 5, rank, 2)
    assert set(made) == {"rows", "positions", "keys"}  # each sample crosses once, however many views there are
    batches = [to_batch(make_views(job, 5, rank, 2), job, job.stats, torch.device("cpu")) for job in (ours, theirs)]
    for name in ("positions", "keys"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
    for one, other in zip(batches[0].views, batches[1].views, strict=True):
        assert torch.equal(one, other)


def test_a_training_does_not_depend_on_where_views_are_made() -> None:
    feed, device = (
        train(make_job(**RECIPES["simclr"], augment_on=where, max_steps=8)) for where in ("workers", "device")
    )
    assert device.history == feed.history


def test_views_of_colour_images_travel_as_their_memory_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    feed, device = (make_job(**RECIPES["simclr"], augment_on=where) for where in ("workers", "device"))
    grey = feed.shards.take
    tint = np.array([1, 2, 3], np.uint8)
    monkeypatch.setattr(feed.shards, "take", lambda positions: grey(positions) // tint)
    stats = {name: np.repeat(feed.stats[name], 3).tolist() for name in ("low", "high", "mean", "std")}
    stats |= {name: feed.stats[name] for name in ("depth", "input")}
    made = make_views(feed, 0, 0, 1)
    assert made["view0"].shape == (32, 3, 8, 8)
    assert made["view0"].flags.c_contiguous
    batches = [to_batch(make_views(job, 0, 0, 1), job, stats, torch.device("cpu")) for job in (feed, device)]
    assert batches[0].views[0].shape == (32, 3, 8, 8)
    assert torch.equal(batches[0].views[0], batches[1].views[0])


def views_of(side: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Job:
    """A job on images of 32 px whose views are of another size."""
    job = make_job(size=32, **{**RECIPES["simclr"], **options})
    sized = {name: policy.model_copy(update={"size": side}) for name, policy in job.views.policies.items()}
    views = job.views.model_copy(update={"policies": sized})
    monkeypatch.setattr(Job, "views", views)
    return job


def test_a_network_of_fixed_size_trains_on_views_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    job = views_of(16, monkeypatch, backbone="vit_tiny_patch16_224", batch_size=4, max_steps=1)
    method, _ = build_method(job)
    batch = to_batch(make_views(job, 0, 0, 1), job, job.stats, torch.device("cpu"))
    assert batch.views[0].shape[2:] == (16, 16)
    assert torch.isfinite(method(batch, "main")["loss"])


@pytest.mark.parametrize(
    ("names", "key"), [(("augment",), r"augment\.size"), (("plain", "local"), r"augment\.policies\.local\.size")]
)
def test_views_of_a_size_that_the_network_cannot_take_are_refused_before_training(
    names: tuple[str, ...], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(views_of(64, monkeypatch, backbone="mixer_s32_224"), view_names=names)
    with pytest.raises(RequestError, match=rf"^{key}: mixer_s32_224 takes images of 32 x 32 px"):
        build_method(job)
