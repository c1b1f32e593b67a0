"""MNIST to USPS: what adapting to a domain without labels is worth. Prints one JSON object and a Markdown table.

    python tests/benchmarks/domains.py WORK_FOLDER [NUM_SEEDS]        # 5 seeds; some twenty minutes on two cores

Two tables. The first is of an encoder that has seen both domains under augmentation: there plain fine-tuning leaves
little to adapt. The second, of `UNTRAINED`, is the setting of the papers: the same network from random weights, without
augmentation, on MNIST labels alone and with the images of USPS.

The recipe is domains.yaml beside this file: 16 pixels, SimCLR on the train images of both domains, then every strategy
on the 4,500 MNIST labels, scored on the test images of USPS. Every tenth train image of each domain is val; those of
MNIST choose the probe's C, and no label of USPS chooses anything. Gaps are measured on val images of both domains. In
the first table the untrained network and training from scratch are left out: the question is what adaptation adds. The
archive is that of PRETEXTFLOW_TEST_DATA (by default ../shared/data beside the checkout).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flows.recipe import load_recipe
from ssl_tasks.artifact import Artifact
from ssl_tasks.schema import PRETRAINED_FILE, RANDOM_INIT_FILE
from ssl_tasks.stages.transfer import TransferConfig
from ssl_tasks.store import Store
from ssl_tasks.transfer import BASELINE, bootstrap, data, domains, shifted, strategy
from ssl_tasks.transfer.budgets import Budget
from ssl_tasks.transfer.context import make_context
from ssl_tasks.transfer.evaluate import Plan
from ssl_tasks.transfer.fits import Fit
from ssl_tasks.transfer.options import AdaptConfig
from ssl_tasks.transfer.runners import threads
from ssl_tasks.transfer.tables import RANDOM_INIT

ROOT = Path(__file__).parents[2]
RECIPE = str(Path(__file__).with_suffix(".yaml"))
METHOD = "simclr"
TRAINING = {"steps": 300, "batch_size": 32, "learning_rates": [0.001]}
UNTRAINED = {
    "strategies": ["deep_coral", "mmd", "dann"],
    "tune": TRAINING,
    "scratch": TRAINING,
}
"""What section `transfer` says where there is no encoder yet; without adapting it is training from scratch."""
VAL_EVERY = 10
WITHOUT = "dann, weight 0"
"""`dann` whose critic moves nothing: what is left is its optimizer, and batch statistics by domain."""


def layout(work: Path) -> Path:
    """The archive as domain/split/label, unpacked once."""
    target = work / "digits_shift"
    if not target.exists():
        archive = Path(os.environ.get("PRETEXTFLOW_TEST_DATA") or ROOT.parent / "shared" / "data")
        with tarfile.open(archive / "digits_shift.tar.gz") as packed:
            packed.extractall(work / "unpacking", filter="data")
        for folder in (work / "unpacking" / "digits_shift").glob("*/train/*"):
            val = folder.parents[1] / "val" / folder.name
            val.mkdir(parents=True)
            for file in sorted(folder.iterdir())[::VAL_EVERY]:
                file.rename(val / file.name)
        (work / "unpacking" / "digits_shift").rename(target)
    return target


def pretrain(work: Path, path: Path) -> dict[str, Artifact]:
    """The artifacts of the recipe's stages up to embed."""
    command = [sys.executable, "-m", "flows.cli", "run", RECIPE, "--json", "--store", str(work / "store")]
    command += ["--set", f"ingest.path={path}", "--set", "transfer.strategies=[]"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    store = Store.open(str(work / "store"))
    stages = json.loads(done.stdout.splitlines()[-1])["stages"]
    return {stage["name"]: store.handle(store.manifest(stage["fingerprint"])) for stage in stages}


def adapt(made: Mapping[str, Artifact], path: Path, num_seeds: int) -> dict[str, list[dict[str, Any]]]:
    """What the transfer stage says of the target, and of the differences that matter here."""
    config = TransferConfig.model_validate(section(path))
    adapting = [name for name in config.strategies if strategy(name).adapts]
    pairs = [(name, strategy(name).counterpart or "") for name in adapting]
    found = evaluated(made, config, METHOD, PRETRAINED_FILE, num_seeds)
    pairs += [("lp_ft", "fine_tune"), (WITHOUT, "fine_tune"), ("dann", WITHOUT)]
    return told(found, METHOD, config, [*config.strategies, WITHOUT], pairs)


def adapt_untrained(made: Mapping[str, Artifact], path: Path, num_seeds: int) -> dict[str, list[dict[str, Any]]]:
    """The same of `UNTRAINED`."""
    config = TransferConfig.model_validate(section(path) | UNTRAINED)
    found = evaluated(made, config, RANDOM_INIT, RANDOM_INIT_FILE, num_seeds, augment=False)
    pairs = [*((name, BASELINE) for name in (*config.strategies, WITHOUT)), ("dann", WITHOUT)]
    return told(found, RANDOM_INIT, config, [BASELINE, *config.strategies, WITHOUT], pairs)


def section(path: Path) -> dict[str, Any]:
    """Section `transfer` of the recipe."""
    found: dict[str, Any] = load_recipe(RECIPE, [f"ingest.path={path}"]).to_dict()["transfer"]
    return found


def evaluated(
    made: Mapping[str, Artifact],
    config: TransferConfig,
    method: str,
    file: str,
    num_seeds: int,
    *,
    augment: bool = True,
) -> shifted.Shifted:
    """All fits on one network, the baselines, and `dann` once more as `WITHOUT`."""
    labelled = data.load(made["split"])
    context = make_context(
        config, made["normalize"], made["pretrain"], labelled.train, labelled.classes, torch.device("cpu")
    )
    if not augment:
        context = replace(context, augment=lambda batch, keys: batch)
    plan = Plan(config.strategies, [Budget()], range(num_seeds), "accuracy", slow_rows=config.slow_rows)
    unmoved = replace(context, options=config.model_copy(update={"adapt": AdaptConfig(dann=0.0)}))
    encoders = {method: lambda: data.embeddings(made["embed"], file, labelled.splits)}
    targets = domains.shifts(labelled, config.domains)
    with threads(workers=0) as runner:
        found = shifted.evaluate_shifts(plan, labelled, targets, encoders, context, runner)
        again = shifted.evaluate_shifts(
            replace(plan, strategies=["dann"]), labelled, targets, encoders, unmoved, runner
        )
    assert not found.failures + again.failures, found.failures + again.failures
    ((target, fits),), ((_, others),) = found.of_targets, again.of_targets
    of_targets = [(target, [*fits, *_renamed(others)])]
    return replace(found, fits=[*found.fits, *_renamed(again.fits)], of_targets=of_targets)


def _renamed(fits: Sequence[Fit]) -> list[Fit]:
    return [replace(fit, strategy=WITHOUT) for fit in fits if fit.strategy == "dann"]


def told(
    found: shifted.Shifted,
    method: str,
    config: TransferConfig,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> dict[str, list[dict[str, Any]]]:
    """Lines of some strategies, and differences of pairs of them."""
    lines = [line for line in shifted.summary(found.of_targets, method, "accuracy") if line["strategy"] in names]
    for line in lines:
        fits = [fit for fit in found.fits if fit.strategy == line["strategy"]]
        line["seeds"] = [round(fit.values["accuracy"], 4) for fit in fits]
        line["learning_rates"] = sorted({fit.chosen["learning_rate"] for fit in fits if "learning_rate" in fit.chosen})
    return {
        "lines": sorted(lines, key=lambda line: names.index(line["strategy"])),
        "against": differences(found, pairs, config),
    }


def differences(
    found: shifted.Shifted, pairs: Sequence[tuple[str, str]], config: TransferConfig
) -> list[dict[str, Any]]:
    """Paired, with the bootstrap of the transfer stage over seeds and test groups, corrected for their number."""
    rows = found.data
    outcomes = [(fit.predicted, fit.likelihood, fit.confidence) for fit in found.fits]
    drawn = bootstrap.replicates(
        rows.labels[rows.test], outcomes, rows.groups, len(rows.classes), config.bootstrap, config.seed
    )
    of = {(fit.strategy, fit.seed): (fit, values["accuracy"]) for fit, values in zip(found.fits, drawn, strict=True)}
    lines: list[dict[str, Any]] = []
    for ours, theirs in pairs:
        sides = [(of[ours, seed], of[theirs, seed]) for name, seed in of if name == ours]
        difference_BS = np.stack([one[1] - other[1] for one, other in sides], axis=1)
        shares_BS = bootstrap.seed_weights(len(sides), config.bootstrap, config.seed)
        low, high = bootstrap.interval(difference_BS, shares_BS)
        mean = float(np.mean([one[0].values["accuracy"] - other[0].values["accuracy"] for one, other in sides]))
        p = bootstrap.p_value(difference_BS, shares_BS)
        lines.append({"strategy": ours, "against": theirs, "difference": mean, "low": low, "high": high, "p": p})
    for line, p in zip(lines, bootstrap.holm([float(line["p"]) for line in lines]), strict=True):
        line["p"] = p
    return lines


HEAD = ("strategy", "USPS", "over seeds", "MNIST", "MMD", "A-distance", "against", "points more on USPS (95%), p")


def markdown(lines: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]]) -> str:
    """A row for each strategy; accuracies in percent."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for line in lines:
        compared = [row for row in against if row["strategy"] == line["strategy"]]
        rows.append(
            (
                line["strategy"],
                f"{100 * line['value']:.1f}",
                f"± {100 * np.std(line['seeds'], ddof=1):.1f}" if len(set(line["seeds"])) > 1 else "",
                f"{100 * line['source']:.1f}",
                _course(line, "mmd", 3),
                _course(line, "a_distance", 2),
                "; ".join(row["against"] for row in compared),
                "; ".join(
                    f"{_points(row['difference'])} ({_points(row['low'])} to {_points(row['high'])}), {row['p']:.3f}"
                    for row in compared
                ),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _course(line: Mapping[str, Any], name: str, digits: int) -> str:
    parts = [line[key] for key in (f"{name}_before", f"{name}_after") if key in line]
    return " to ".join(f"{part:.{digits}f}" for part in parts)


def main(work: Path, num_seeds: int = 5) -> None:
    """Unpack, pretrain, adapt, print."""
    began = time.monotonic()
    path = layout(work)
    made = pretrain(work, path)
    tables = {"pretrained": adapt(made, path, num_seeds), "untrained": adapt_untrained(made, path, num_seeds)}
    about = {"cores": os.cpu_count(), "seconds": round(time.monotonic() - began)}
    print(json.dumps(about | {"steps": made["pretrain"].measured["steps"]} | tables))
    for name, found in tables.items():
        print(f"\n{name}\n\n{markdown(**found)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *map(int, sys.argv[2:]))
