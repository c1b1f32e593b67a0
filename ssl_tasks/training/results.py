"""What rank 0 leaves when training is done: the encoder, its start, and what was measured on the way."""

from __future__ import annotations

import json
import math
import resource
import shutil
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import nn

from ssl_tasks import methods
from ssl_tasks.encoder import ENCODER_FILE, EncoderInfo, save_weights
from ssl_tasks.schema import HEALTH_FILE, METRICS_FILE, TOKENIZER_FILE
from ssl_tasks.training import bottleneck
from ssl_tasks.training.health import guesses
from ssl_tasks.training.job import DONE_FILE, Job
from ssl_tasks.training.loop import Trainer
from ssl_tasks.training.probe import geometry
from ssl_tasks.training.timing import SPEED_FILE
from ssl_tasks.training.trace import TRACE_FILE


def write_results(trainer: Trainer, seconds: float) -> None:
    """Write all files through `job.out` and, last, `done.json` beside the checkpoints, which lists them."""
    job = trainer.job
    measured = _measured(trainer, seconds)  # looks at the encoder, which saving turns to float32
    backbone: nn.Module = trainer.method.backbone if trainer.ema is None else trainer.ema.averaged
    with job.out.file("encoder.safetensors") as path:
        save_weights(backbone.float(), path)
    with job.out.file("initial.safetensors") as path:
        save_file({name: tensor.contiguous() for name, tensor in trainer.random_weights.items()}, path)
    if job.reads_text:
        with job.out.file(TOKENIZER_FILE) as path:
            shutil.copyfile(job.normalized.path(TOKENIZER_FILE), path)
    job.out.json(ENCODER_FILE, _info(job, backbone).model_dump(mode="json"))
    job.out.table(METRICS_FILE, _table(trainer.history))
    job.out.table(HEALTH_FILE, _table(trainer.health))
    with job.out.file(SPEED_FILE, rendering=True) as path:  # times are no data: equal runs differ in them
        pq.write_table(_table(trainer.clock.steps), path)
    if trainer.trace is not None and trainer.trace.is_done:
        with job.out.file(TRACE_FILE, rendering=True) as path:
            trainer.trace.write(path)
    _write_done(job, measured)


def write_pause(trainer: Trainer) -> None:
    """Write `done.json` alone, with the health at the step that the job pauses at; the checkpoint is there already."""
    place = trainer.health["step"].index(float(trainer.job.last_step))
    _write_done(trainer.job, _without_nan({name: values[place] for name, values in trainer.health.items()}))


def _write_done(job: Job, measured: dict[str, Any]) -> None:
    done = {
        "attempt": job.out.attempt,
        "entries": {name: entry.model_dump() for name, entry in job.out.entries.items()},
        "schemas": job.out.schemas,
        "measured": measured,
    }
    job.out.store.write_json(f"{job.partial}/{DONE_FILE}", done)


def _info(job: Job, backbone: nn.Module) -> EncoderInfo:
    return EncoderInfo(
        method=job.config.method.name,
        backbone=job.config.backbone,
        stem=job.config.stem,
        pool=methods.pool(job.config.method.options(), job.config.modality),
        modality=job.config.modality,
        input_shape=job.modality.input_shape(job.stats),
        stats=job.stats,
        num_features=int(backbone.num_features),  # type: ignore[arg-type]  # nn.Module types attributes as tensors
        steps=job.total_steps,
        precision=job.config.precision,
        seed=job.config.seed,
    )


def _measured(trainer: Trainer, seconds: float) -> dict[str, Any]:
    taken = trainer.step - (trainer.resumed_at or 0)
    in_force = trainer.config.model_copy(update={"num_workers": trainer.ranks.world})
    found = bottleneck.find(trainer.clock.steps, in_force)
    rows = taken * trainer.config.batch_size
    measured = {
        "steps": trainer.step,
        "epochs": trainer.step / trainer.job.plan.steps_per_epoch,
        "loss": trainer.history["loss"][-1],
        "rows_per_second": rows / seconds if taken else None,
        "batch_size": trainer.config.batch_size,
        "seconds": trainer.clock.seconds,
        "bottleneck": None if found is None else found.to_dict(),
        "workers": trainer.ranks.world,
        "device": trainer.ranks.device.type,
        "resumed_at": trainer.resumed_at,
        "peak_memory_bytes": peak_memory(trainer.ranks.device.type),
        **geometry(trainer),
        "choice": trainer.choice,
        **{name: values[-1] for name, values in trainer.health.items() if name != "step"},
    }
    told = guesses(trainer.history, trainer.method.chance())
    return _without_nan(measured | ({"warnings": told} if told else {}))


def _without_nan(measured: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(measured), parse_constant=lambda _: None))  # NaN is no JSON


def peak_memory(device_type: str) -> int:
    """Bytes: of tensors on the GPU, or of this process, which holds its libraries too (half a gigabyte)."""
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


def _table(columns: dict[str, list[float]]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        if name == "step":
            arrays[name] = pa.array([int(value) for value in values], pa.int64())
        else:
            arrays[name] = pa.array([None if math.isnan(value) else value for value in values], pa.float64())
    return pa.table(arrays)
