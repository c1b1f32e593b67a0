"""The verdict: did pretraining help, against what, by how much, from how few labels, with what confidence.

It speaks of the first strategy that the recipe lists, so that nobody picks the best looking one afterwards. At
a label budget pretraining helped where the 95% interval of the difference lies above 0 against both baselines, also
after correction for the number of comparisons, and both differences matter. A from-scratch baseline that was stopped
too early cannot be beaten in this sense. A strategy that trains the whole network has one baseline alone: on the
untrained network it would be training from scratch. The headline takes the smallest such budget, and says where
pretraining did harm at another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ssl_tasks.transfer import BASELINE, strategy

Outcome = Literal["helped", "partly", "worse", "no_gain", "undecided", "too_few", "not_measured"]
Line = dict[str, Any]
"""One element of what the transfer stage measured as `summary`."""

FEW_GROUPS = 20
ALPHA = 0.05
FITTED = 0.98
"""A from-scratch baseline that gets less of its own labelled rows right was stopped too early to be a fair one."""
METRIC_TITLES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Verdict:
    """The answer, and the lines it rests on."""

    outcome: Outcome
    sentence: str
    details: list[str]
    """Further sentences: the other budgets, what limits the answer."""
    metric: str
    strategy: str
    margin: float
    lines: list[Line]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def decide(
    summary: Sequence[Line], *, margin: float, test_groups: int, method: str, fitted: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict on a transfer's summary.

    Args:
        summary: what the transfer stage measured; empty where there was no transfer.
        margin: a gain below this does not matter.
        test_groups: independent groups among the labelled test rows.
        method: name of the pretext method.
        fitted: share of its labelled rows that the from-scratch baseline gets right, by label fraction.
    """
    if not summary:
        sentence = "Not measured: no transfer strategy ran, so nothing is known of what the encoder is worth."
        return Verdict("not_measured", sentence, [], "", "", margin, [])
    first, metric = summary[0]["strategy"], summary[0]["metric"]
    lines = sorted((line for line in summary if line["strategy"] == first), key=lambda line: line["label_fraction"])
    early = {line["label_fraction"] for line in lines if stopped_early(line, fitted or {})}
    outcome, line = _outcome(lines, early, margin, test_groups)
    words = _Words(method, first, metric, early, margin, test_groups)
    details = [words.detail(other) for other in lines if other is not line]
    return Verdict(outcome, words.sentence(outcome, line, lines), details, metric, first, margin, list(summary))


def stopped_early(line: Line, fitted: Mapping[str, float]) -> bool:
    """Whether the from-scratch baseline had not converged at this label budget; `fitted` as for `decide`."""
    return fitted.get(f"{line['label_fraction']:g}", 1.0) < FITTED


Judgement = Literal["better", "worse", "open"]
JUDGEMENTS = {"better": "better", "worse": "worse", "open": "undecided"}


def judge(line: Line, prefix: str) -> Judgement:
    """Where the 95% interval lies; prefix "" for the untrained network, `scratch_` for training from scratch.

    Open too where the p-value, corrected for the number of comparisons, is above `ALPHA`.
    """
    if line.get(f"{prefix}p", 0.0) > ALPHA:
        return "open"
    if line[f"{prefix}low"] > 0:
        return "better"
    return "worse" if line[f"{prefix}high"] < 0 else "open"


def trains_all(name: str) -> bool:
    """Whether the strategy trains the whole network, so that untrained and from scratch are the same baseline."""
    return strategy(name).untrained == BASELINE


def beats(line: Line, prefix: str, margin: float) -> bool:
    """Whether the encoder is better, and by enough to matter."""
    return judge(line, prefix) == "better" and bool(line[f"{prefix}difference"] >= margin)


def _outcome(lines: list[Line], early: set[float], margin: float, test_groups: int) -> tuple[Outcome, Line]:
    """The outcome and the line that the headline speaks of."""
    if test_groups < FEW_GROUPS:
        return "too_few", lines[0]
    encoder = [line for line in lines if beats(line, "", margin)]
    if trains_all(lines[0]["strategy"]):
        encoder = [line for line in encoder if line["label_fraction"] not in early]
    for line in encoder:
        if beats(line, "scratch_", margin) and line["label_fraction"] not in early:
            return "helped", line
    if encoder:
        return "partly", encoder[0]
    worse = [line for line in lines if judge(line, "") == "worse"]
    if worse:
        return "worse", worse[0]
    most = max(lines, key=lambda line: line["high"])
    return ("no_gain" if most["high"] <= margin else "undecided"), most


@dataclass(frozen=True)
class _Words:
    method: str
    strategy: str
    metric: str
    early: set[float]
    """Label fractions at which the from-scratch baseline had not converged."""
    margin: float
    test_groups: int

    @property
    def alone(self) -> bool:
        """Whether training from scratch is the only baseline."""
        return trains_all(self.strategy)

    def sentence(self, outcome: Outcome, line: Line, lines: list[Line]) -> str:
        probe, metric = strategy(self.strategy).title, METRIC_TITLES[self.metric]
        reached = (
            f"with {labels(line)}, {probe} on the {self.method} encoder reached {percent(line['pretrained'])} {metric}"
        )
        scratch = (
            f"{gain(line, 'scratch_')} than that network trained from scratch on the same labels{self._weak(line)}"
        )
        random = scratch if self.alone else f"{gain(line, '')} than on the same network untrained"
        both = f"{reached}, {random}" if self.alone else f"{reached}, {random} and {scratch}"
        if outcome == "helped":
            return f"Pretraining helped: {both}{self._harm(line, lines)}."
        if outcome == "partly":
            return f"Pretraining improved the encoder; {self._open(lines)}: {both}{self._harm(line, lines)}."
        if outcome == "worse":
            return f"Pretraining did not help, it did harm: {reached}, {random}."
        if outcome == "no_gain":
            baseline = "trained from scratch" if self.alone else "untrained"
            return (
                f"No evidence that pretraining helped: at no label budget did {probe} gain more over the same network "
                f"{baseline} than {points(self.margin)} of {metric}; the most it could be is {interval(line, '')}, "
                f"with {labels(line)}."
            )
        if outcome == "too_few":
            return f"Too few test groups ({self.test_groups}) for an answer: {both}; at least {FEW_GROUPS} are needed."
        if self.alone and line["label_fraction"] in self.early and judge(line, "") == "better":
            return f"Whether pretraining helped is open without a fair baseline; raise transfer.scratch.steps: {both}."
        if judge(line, "") == "better":
            return (
                f"Pretraining improved the encoder; whether by the {points(self.margin)} that matter, the test cannot "
                f"tell: {reached}, {random}."
            )
        return f"No evidence that pretraining helped, and none against it: {reached}, {random}; the test cannot tell."

    def _open(self, lines: list[Line]) -> str:
        """What the comparisons with training from scratch say, at all budgets, where the encoder helped at none."""
        better = [other for other in lines if judge(other, "scratch_") == "better"]
        fair = [other for other in better if other["label_fraction"] not in self.early]
        worse = [other for other in lines if judge(other, "scratch_") == "worse"]
        if worse:
            return f"training from scratch was better with {_budgets(worse)}"
        if any(beats(other, "scratch_", self.margin) for other in fair):
            return "it beat the untrained network and training from scratch, but not both at one label budget"
        if fair:
            return f"its gain over training from scratch with {_budgets(fair)} is below {points(self.margin)}"
        if better:
            return (
                "it beat the untrained network, and training from scratch had not converged within "
                f"transfer.scratch.steps with {_budgets(better)}, so that comparison is open"
            )
        return "whether that is more than training from scratch gives, the test cannot tell"

    def _harm(self, said: Line, lines: list[Line]) -> str:
        """Where the encoder was worse than a baseline, as far as the sentence does not say it already."""
        found = [
            f"with {labels(line)} it was worse than {name}, {interval(line, prefix)}"
            for line in lines
            for prefix, name in (("", "untrained"), ("scratch_", "from scratch"), ("raw_", "raw input"))[self.alone :]
            if (line is not said or prefix == "raw_") and f"{prefix}low" in line and judge(line, prefix) == "worse"
        ]
        return "".join(f"; {text}" for text in found)

    def detail(self, line: Line) -> str:
        random, scratch = (JUDGEMENTS[judge(line, prefix)] for prefix in ("", "scratch_"))
        if scratch == "better" and line["label_fraction"] in self.early:
            scratch = JUDGEMENTS["open"]
        untrained = "" if self.alone else f" Against the untrained network {interval(line, '')}: {random}."
        return (
            f"With {labels(line)}: {percent(line['pretrained'])}.{untrained} "
            f"Against training from scratch{self._weak(line)} {interval(line, 'scratch_')}: {scratch}."
        )

    def _weak(self, line: Line) -> str:
        return " (which had not converged)" if line["label_fraction"] in self.early else ""


def labels(line: Line) -> str:
    """`1% of the labels (13)`, `5 labels a class (50)`."""
    if line.get("labels_per_class"):
        count = line["labels_per_class"]
        return f"{count:,} label{'' if count == 1 else 's'} a class ({line['num_labels']:,})"
    if line["label_fraction"] == 1.0:
        return f"all labels ({line['num_labels']:,})"
    return f"{line['label_fraction'] * 100:g}% of the labels ({line['num_labels']:,})"


def _budgets(lines: Sequence[Line]) -> str:
    """`1% of the labels (13) and all labels (1,258)`."""
    return " and ".join(labels(line) for line in lines)


def percent(value: float) -> str:
    """A share with one decimal."""
    return f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A share as percentage points."""
    return f"{100 * value:.1f} points"


def signed(value: float) -> str:
    """Percentage points with sign, a true minus, and no minus zero."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def interval(line: Line, prefix: str) -> str:
    """`+2.1 points (95% interval +0.4 to +3.9)`."""
    difference, low, high = (line[f"{prefix}{name}"] for name in ("difference", "low", "high"))
    return f"{signed(difference)} points (95% interval {signed(low)} to {signed(high)})"


def gain(line: Line, prefix: str) -> str:
    """`12.3 points more (95% interval +8.1 to +16.0)`."""
    difference, low, high = (line[f"{prefix}{name}"] for name in ("difference", "low", "high"))
    word = "less" if difference < 0 else "more"
    return f"{points(abs(difference))} {word} (95% interval {signed(low)} to {signed(high)})"
