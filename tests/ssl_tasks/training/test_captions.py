"""Training on images and captions, without Ray: what a batch holds, one rank and two, stopped and resumed."""

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_captioned import captioned, sections
from torch import distributed

from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import TOKENIZER_FILE
from ssl_tasks.store import Output, Store
from ssl_tasks.training.config import PretrainConfig
from ssl_tasks.training.job import Job
from ssl_tasks.training.loop import Trainer, _parts
from ssl_tasks.training.results import write_results
from ssl_tasks.training.setup import Ranks
from ssl_tasks.training.views import make_views, to_batch

CPU = torch.device("cpu")
SMALL = {"out_dim": 16, "text_width": 16, "text_depth": 1, "text_heads": 2}


@functools.cache
def artifacts() -> dict[str, Artifact]:
    """The same data in every process."""
    from tests_chain import run_chain

    folder = Path(tempfile.mkdtemp())
    return run_chain(Store.open(str(folder / "store")), sections(captioned(folder / "data")))


def make_job(name: str, **options: Any) -> Job:
    made = artifacts()
    settings = {**sections(Path())["pretrain"], "method": {"name": name, **SMALL}, **options}
    if name == "simclr":
        settings["method"] = "simclr"
    config = PretrainConfig.model_validate(settings)
    unique = f"{os.getpid()}-{np.random.default_rng().integers(1 << 62)}"
    out = Output(made["normalize"].uri, unique, "a", "pretrain")
    parents = made["normalize"], made["split"], made["augment"]
    views = ("augment", "augment") if name == "simclr" else ("augment",)
    return Job(config, out, *parents, views, reads_text=name != "simclr")


def train(job: Job, stop: int | None = None) -> Trainer:
    """Train in this process; `stop` breaks off before that step, as a kill would."""
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    rank = distributed.get_rank() if world > 1 else 0

    def feed(first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
        for step in range(first, last):
            if step == stop:
                raise KeyboardInterrupt
            yield make_views(job, step, rank, world)

    torch.set_num_threads(1)
    trainer = Trainer(job, Ranks(rank, world, CPU))
    try:
        trainer.run(feed, lambda progress: None)
    except KeyboardInterrupt:
        trainer.checkpoints.wait()
    return trainer


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_a_batch_has_the_tokens_of_its_rows_for_any_number_of_ranks(augment_on: str) -> None:
    job = make_job("clip", augment_on=augment_on)
    whole = to_batch(make_views(job, 3, 0, 1), job, job.stats, CPU)
    assert whole.text is not None
    assert whole.text.dtype == torch.int64
    assert np.array_equal(whole.text.numpy(), job.tokens.take(whole.positions.numpy()))
    halves = [to_batch(make_views(job, 3, rank, 2), job, job.stats, CPU) for rank in range(2)]
    both = torch.cat([half.positions for half in halves]), torch.cat([half.text for half in halves])  # type: ignore[misc]
    order, expected = both[0].argsort(), whole.positions.argsort()
    assert torch.equal(both[0][order], whole.positions[expected])
    assert torch.equal(both[1][order], whole.text[expected])
    parts = _parts(whole, 3)
    assert torch.equal(torch.cat([part.text for part in parts]), whole.text)  # type: ignore[misc]


def test_other_methods_get_no_text_from_the_same_data() -> None:
    job = make_job("simclr")
    made = make_views(job, 0, 0, 1)
    assert "text" not in made
    assert to_batch(made, job, job.stats, CPU).text is None


def clip_fp64() -> dict[str, Any]:
    return train(make_job("clip", precision="fp64", max_steps=8)).history


def siglip_fp64() -> dict[str, Any]:
    return train(make_job("siglip", precision="fp64", max_steps=8)).history


@pytest.mark.parametrize("run", [clip_fp64, siglip_fp64])
def test_two_ranks_learn_what_one_does(run: Any, run_ranks: Any) -> None:
    alone = run()
    for together in run_ranks(run):
        for name in ("loss", "recall_at_1", "logit_scale", "grad_norm"):
            reach = 1e-6 if name == "recall_at_1" else 1e-8  # counted in float32
            np.testing.assert_allclose(together[name], alone[name], rtol=0, atol=reach, err_msg=name)


def test_the_tokenizer_travels_with_the_encoder() -> None:
    job = make_job("clip", max_steps=2)
    write_results(train(job), 1.0)
    assert {"encoder.json", "encoder.safetensors", TOKENIZER_FILE} <= job.out.entries.keys()
    assert job.out.path(TOKENIZER_FILE).read_bytes() == job.normalized.path(TOKENIZER_FILE).read_bytes()


@pytest.mark.parametrize("name", ["clip"])
def test_captions_are_found_again_and_a_stopped_run_ends_with_the_same_bits(name: str) -> None:
    options = {"epochs": 40, "optimizer": {"lr": 0.01}, "checkpoint_every_steps": 50}
    whole = train(make_job(name, **options))
    recall, loss = whole.history["recall_at_1"], whole.history["loss"]
    assert np.mean(recall[-9:]) > 0.4 > 2 * np.mean(recall[:2])  # 18 captions a batch, of 9 kinds: 0.11 at chance
    assert np.mean(loss[-9:]) < 0.8 * np.mean(loss[:3])
    job = make_job(name, **options)
    train(job, stop=60)
    again = train(job)
    assert again.resumed_at == 50
    assert again.history == whole.history
    for key, value in whole.method.state_dict().items():
        assert torch.equal(again.method.state_dict()[key], value), key
