"""Whether an encoder is better than a baseline, and by enough: what verdict, advice and tables judge by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ssl_tasks.transfer import BASELINE, located, segmented, strategy
from ssl_tasks.transfer.kinds import LOWER_IS_BETTER

Line = dict[str, Any]
"""One element of what the transfer stage measured as `summary`."""

FEW_GROUPS = 20
FEW_SEEDS = 5
"""With fewer test groups, or fewer draws of labels, there is no answer."""
ALPHA = 0.05
FITTED = 0.98
"""A from-scratch baseline that gets less of its own labelled rows right was stopped too early to be a fair one."""
PLACES = frozenset({*segmented.METRICS, *located.METRICS})
"""Metrics of tasks that say where things are. There a fit that has converged may still get less than `FITTED` of its
own pixels or boxes right: of a baseline below it nobody knows, and it counts as no fair one."""
SHORT = {"scratch_": "training from scratch", "raw_": "raw input"}


def stopped_early(line: Line, fitted: Mapping[str, float]) -> bool:
    """Whether nobody knows that the from-scratch baseline converged at this label budget; `fitted` as for `decide`."""
    return fitted.get(f"{line['label_fraction']:g}", 1.0) < FITTED


def unfinished(metric: str) -> str:
    """What there is to say of such a baseline."""
    return "may not have converged" if metric in PLACES else "had not converged"


Judgement = Literal["better", "worse", "open"]
JUDGEMENTS = {"better": "better", "worse": "worse", "open": "undecided"}


def judge(line: Line, prefix: str) -> Judgement:
    """Where the 95% interval lies; prefix "" for the untrained network, `scratch_` for training from scratch.

    Open too where it rests on too few seeds, or where the p-value, corrected for the number of comparisons, is above
    `ALPHA`.
    """
    if few_seeds(line, prefix) or line.get(f"{prefix}p", 0.0) > ALPHA:
        return "open"
    _, low, high = gains(line, prefix)
    if low > 0:
        return "better"
    return "worse" if high < 0 else "open"


def few_seeds(line: Line, prefix: str = "") -> bool:
    """Whether a comparison rests on fewer seeds than an answer needs, by prefix as for `judge`."""
    seeds = line[own] if (own := f"{prefix}num_seeds") in line else line["num_seeds"]
    return int(seeds) < FEW_SEEDS


def gains(line: Line, prefix: str) -> tuple[float, float, float]:
    """The difference and its interval, so that more than 0 is better."""
    difference, low, high = (float(line[f"{prefix}{name}"]) for name in ("difference", "low", "high"))
    lower = line.get("metric") in LOWER_IS_BETTER
    return (-difference, -high, -low) if lower else (difference, low, high)


def enough(line: Line, margin: float) -> float:
    """The gain from which on it matters, in the metric's own unit."""
    return margin * float(line.get("scale", 1.0))


def second(lines: Sequence[Line]) -> str:
    """Prefix of the comparison that counts beside that with the untrained network: from scratch, else raw input."""
    return next((prefix for prefix in SHORT if all(f"{prefix}low" in line for line in lines)), "")


def trains_all(name: str) -> bool:
    """Whether the strategy trains the whole network, so that untrained and from scratch are the same baseline."""
    return strategy(name).untrained == BASELINE


def beats(line: Line, prefix: str, margin: float) -> bool:
    """Whether the encoder is better, and by enough to matter."""
    return judge(line, prefix) == "better" and gains(line, prefix)[0] >= enough(line, margin)
