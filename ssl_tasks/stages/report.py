"""report: one self-contained HTML page that says what the encoder is worth and where everything came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config
from ssl_tasks.errors import RequestError
from ssl_tasks.schema import HEALTH_FILE, LABEL, LABEL_KEY, METRICS_FILE, ROW, SPLIT, SPLITS_FILE
from ssl_tasks.stages.base import Stage
from ssl_tasks.store import Output
from ssl_tasks.transfer.targets import CLASSIFICATION, DENSE

if TYPE_CHECKING:
    from ssl_tasks.cleaning.contamination import Contamination
    from ssl_tasks.report.verdict import Verdict

INPUTS = ("ingest", "clean", "assign", "normalize", "split", "augment", "pretrain", "embed", "transfer")
ADOPTED_INPUTS = (*("adopt" if name == "pretrain" else name for name in INPUTS), "contamination")
"""Where the encoder was there before the run."""
REPORT_FILE = "report.html"
VERDICT_FILE = "verdict.json"


class ReportConfig(Config):
    """Section `report`."""

    title: str = ""
    """Of the page."""
    map: Literal["pca", "umap"] = "pca"
    """How the embeddings are laid out; `umap` needs `pip install 'pretextflow[umap]'`."""
    margin: float = Field(0.01, ge=0, lt=1)
    """A gain over the untrained network of less than this is called none."""


def check(config: ReportConfig) -> None:
    """Refuse what this installation cannot draw.

    Raises:
        RequestError: UMAP is asked for and not installed.
    """
    if config.map == "umap" and find_spec("umap") is None:
        raise RequestError("report.map: umap is not installed; pip install 'pretextflow[umap]', or set it to pca")


def run(config: ReportConfig, out: Output, *artifacts: Artifact) -> Artifact:
    """Write `verdict.json` (data) and `report.html` (a rendering: it shows times)."""
    return _write(config, out, dict(zip(INPUTS, artifacts, strict=True)))


def run_adopted(config: ReportConfig, out: Output, *artifacts: Artifact) -> Artifact:
    """As `run`, of an encoder that was there before: nothing of its training, but whether it has seen test rows."""
    return _write(config, out, dict(zip(ADOPTED_INPUTS, artifacts, strict=True)))


def _encoder(inputs: dict[str, Artifact]) -> Artifact:
    return inputs["pretrain"] if "pretrain" in inputs else inputs["adopt"]


def _write(config: ReportConfig, out: Output, inputs: dict[str, Artifact]) -> Artifact:
    from ssl_tasks.report import contamination, domains
    from ssl_tasks.report.advice import advice
    from ssl_tasks.report.sections import fitted_by
    from ssl_tasks.report.verdict import decide

    measured, encoder = inputs["transfer"].measured, _encoder(inputs).json("encoder.json")
    verdict = decide(
        measured["summary"],
        margin=config.margin,
        test_groups=measured.get("test_groups", 0),
        method=encoder["method"],
        fitted=fitted_by(measured.get("scratch", {})),
    )
    seen = contamination.found(inputs)
    warned = [f"{text}." for text in (seen.measured.get("warnings", []) if seen else [])]
    further = [*domains.sentences(measured), *advice(measured, config.margin)]
    verdict = replace(verdict, details=[*warned, *verdict.details, *further])
    out.json(VERDICT_FILE, verdict.to_dict())
    with out.file(REPORT_FILE, rendering=True) as path:
        path.write_text(render(config, inputs, verdict, encoder, out.fingerprint, seen), encoding="utf-8")
    rows = inputs["transfer"].rows
    return out.artifact(rows=rows, measured={"outcome": verdict.outcome, "verdict": verdict.sentence})


def render(
    config: ReportConfig,
    inputs: dict[str, Artifact],
    verdict: Verdict,
    encoder: dict[str, Any],
    fingerprint: str,
    seen: Contamination | None = None,
) -> str:
    """The page as text. Everything that came with the data is escaped.

    Args:
        fingerprint: of the report, by which the run that makes it is found.
        seen: test rows that were seen in pretraining, as far as that was looked for.
    """
    from ssl_tasks.report import contamination, distributions, page, sections, what_ran

    splits = sections.splits(inputs["split"])
    known = what_ran.states(_encoder(inputs).store, fingerprint)
    return page.render(
        "report.html.j2",
        title=config.title or f"{encoder['method']} on {inputs['ingest'].rows:,} samples",
        verdict=verdict,
        encoder=encoder,
        **(_transfer(inputs, verdict, encoder["method"]) if verdict.lines else {}),
        **(_training(inputs) if "pretrain" in inputs else _adopted(inputs["adopt"], encoder)),
        contamination=contamination.section(inputs, seen, verdict, encoder["method"]),
        **_samples(inputs, encoder, config.map),
        stages=sections.stages(inputs),
        libraries=sections.libraries(inputs),
        quarantine=sections.quarantine(inputs),
        splits=splits,
        classes=distributions.classes(splits),
        sizes=distributions.sizes(inputs["clean"], inputs["ingest"]),
        ran=what_ran.section(inputs, known),
        facts=sections.quality_facts(inputs),
        source=inputs["ingest"].measured.get("source", ""),
    )


def _training(inputs: dict[str, Artifact]) -> dict[str, Any]:
    """What the page says of pretraining."""
    from ssl_tasks.report import charts, sections

    metrics = inputs["pretrain"].table(METRICS_FILE)
    return {
        "adopted": None,
        "losses": charts.curves(metrics, charts.is_loss),
        "course": charts.curves(metrics, lambda name: not charts.is_loss(name)),
        "health": charts.curves(inputs["pretrain"].table(HEALTH_FILE)),
        "preview": sections.preview(inputs["augment"]),
    }


def _adopted(adopt: Artifact, encoder: dict[str, Any]) -> dict[str, Any]:
    """What it says in its place of an encoder that was there before."""
    from ssl_tasks.report import adopted

    return {"adopted": adopted.facts(adopt, encoder)}


def _transfer(inputs: dict[str, Artifact], verdict: Verdict, method: str) -> dict[str, Any]:
    """What the page says of labels; only where a strategy ran."""
    from ssl_tasks.report import (
        by_task,
        calibration,
        charts,
        choices,
        confusion,
        dense,
        domains,
        predictions,
        sections,
        slices,
        units,
    )
    from ssl_tasks.report.pictures import Pictures
    from ssl_tasks.transfer import strategy

    transfer = inputs["transfer"]
    measured = transfer.measured
    task = measured.get("task", CLASSIFICATION)
    if task == CLASSIFICATION:
        fits = predictions.load(transfer, verdict.lines, verdict.strategy, method)
        looked_into = {
            "confusion": confusion.section(fits),
            "slices": slices.section(fits, inputs["split"]),
            "group_rows": slices.GROUP_ROWS,
            "calibration": calibration.section(fits),
            "kind": None,
        }
    elif task in DENSE:
        pictures = Pictures.of(inputs["normalize"])
        assert pictures is not None, "only images have masks or boxes"
        table = inputs["split"].table(SPLITS_FILE, [ROW])
        looked_into = {"kind": dense.section(transfer, inputs["normalize"], table, pictures, verdict, method)}
    else:
        looked_into = {"kind": by_task.section(transfer, verdict, method)}
    return {
        "task": task,
        "majority": sections.majority_says(task),
        "by_metric": by_task.every_metric(transfer, verdict, method),
        "unit": "Points more" if units.is_share(verdict.metric) else "Difference from",
        "scale": any("scale" in line for line in verdict.lines),
        "metric": sections.metric_title(verdict.metric),
        "efficiency": charts.efficiency(transfer.table(METRICS_FILE), measured["strategies"], method, verdict.metric),
        "transfer": sections.transfer_table(verdict.lines, sections.fitted_by(measured["scratch"])),
        "choices": choices.section(transfer, method, measured.get("encoders", [method])),
        "costs": choices.costs(measured.get("fit_seconds", {})),
        "rules": choices.rules(transfer, method),
        "domains": domains.section(measured),
        "protocol": measured,
        "scratch_note": sections.scratch_note(measured["scratch"]),
        "probe": strategy(verdict.strategy).title,
        **looked_into,
    }


def _samples(inputs: dict[str, Artifact], encoder: dict[str, Any], kind: Literal["pca", "umap"]) -> dict[str, Any]:
    """What the page shows of single samples."""
    from ssl_tasks.report import duplicates, embedding_map, neighbours, saliency
    from ssl_tasks.report.pictures import Pictures

    pictures = Pictures.of(inputs["normalize"])
    splits, embed = inputs["split"].table(SPLITS_FILE, [ROW, SPLIT, LABEL, LABEL_KEY]), inputs["embed"]
    return {
        "embedding": embedding_map.section(splits, embed, pictures, encoder["method"], kind),
        "neighbours": neighbours.section(splits, inputs["split"], embed, pictures),
        "saliency": saliency.section(splits, _encoder(inputs), pictures, encoder["modality"]),
        "duplicates": duplicates.section(inputs, splits[ROW].to_numpy(), pictures),
    }


def beside(configs: Mapping[str, Any], fingerprints: Mapping[str, str], store: str) -> str | None:
    """Hash of what is not at hand of that which encoders that came into the run were pretrained on."""
    first, further = (
        configs["pretrain"].init_from,
        configs["transfer"].encoders if configs["transfer"].strategies else (),
    )
    if not (references := [*([first] if first else []), *further]):
        return None
    from ssl_tasks.report.contamination import at_hand

    return at_hand(references, store)


STAGE = Stage("report", ReportConfig, INPUTS, run, version=8, check=check, beside=beside)
OF_ADOPTED = replace(STAGE, inputs=ADOPTED_INPUTS, run=run_adopted, beside=None)
"""In the DAG of an existing encoder."""
