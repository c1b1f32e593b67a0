"""The verdict: did pretraining help, against what, by how much, from how few labels, with what confidence.

It speaks of the first strategy that the recipe lists, so that nobody picks the best looking one afterwards. At
a label budget pretraining helped where the 95% interval of the difference lies above 0 against both baselines, also
after correction for the number of comparisons, and both differences matter. A from-scratch baseline that was stopped
too early cannot be beaten in this sense, nor one that may have been. A strategy that trains the whole network has one
such baseline alone: on the untrained network it would be training from scratch. The headline takes the smallest such
budget, and says where pretraining did harm at another. Few test groups or few seeds give no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ssl_tasks.report.judging import (
    FEW_GROUPS,
    FEW_SEEDS,
    JUDGEMENTS,
    SHORT,
    Line,
    beats,
    enough,
    few_seeds,
    gains,
    judge,
    second,
    stopped_early,
    trains_all,
    unfinished,
)
from ssl_tasks.report.phrases import gain, interval, labels
from ssl_tasks.report.units import METRIC_TITLES, apart, reached, written
from ssl_tasks.transfer import strategy

Outcome = Literal["helped", "partly", "worse", "no_gain", "undecided", "too_few", "not_measured"]
LONG = {"scratch_": "that network trained from scratch on the same labels", "raw_": "raw input without an encoder"}
"""What the encoder has to beat beside the untrained network, by the prefix of its comparison."""


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
        fitted: share of its labelled rows, their pixels or boxes, that the from-scratch baseline gets right (R2 of
            numbers), by label fraction.
    """
    if not summary:
        sentence = "Not measured: no transfer strategy ran, so nothing is known of what the encoder is worth."
        return Verdict("not_measured", sentence, [], "", "", margin, [])
    first, metric = summary[0]["strategy"], summary[0]["metric"]
    lines = sorted((line for line in summary if line["strategy"] == first), key=lambda line: line["label_fraction"])
    early = {line["label_fraction"] for line in lines if stopped_early(line, fitted or {})}
    judged = [line for line in lines if not few_seeds(line)]
    outcome, line = _outcome(judged, early, margin, test_groups) if judged else ("too_few", lines[0])
    words = _Words(method, first, metric, early, margin, test_groups, second(lines))
    details = [words.detail(other) for other in lines if other is not line]
    return Verdict(outcome, words.sentence(outcome, line, judged), details, metric, first, margin, list(summary))


def _outcome(lines: list[Line], early: set[float], margin: float, test_groups: int) -> tuple[Outcome, Line]:
    """The outcome and the line that the headline speaks of."""
    if test_groups < FEW_GROUPS:
        return "too_few", lines[0]
    encoder = [line for line in lines if beats(line, "", margin)]
    if trains_all(lines[0]["strategy"]):
        encoder = [line for line in encoder if line["label_fraction"] not in early]
    other = second(lines)
    for line in encoder:
        if not other or (beats(line, other, margin) and line["label_fraction"] not in early):
            return "helped", line
    if encoder:
        return "partly", encoder[0]
    worse = [line for line in lines if judge(line, "") == "worse"]
    if worse:
        return "worse", worse[0]
    most = max(lines, key=lambda line: gains(line, "")[2] / (line.get("scale") or 1.0))
    return ("no_gain" if gains(most, "")[2] <= enough(most, margin) else "undecided"), most


@dataclass(frozen=True)
class _Words:
    method: str
    strategy: str
    metric: str
    early: set[float]
    """Label fractions at which the from-scratch baseline had not converged."""
    margin: float
    test_groups: int
    other: str
    """Prefix of what `second` gives."""

    @property
    def alone(self) -> bool:
        """Whether training from scratch is the only baseline that is a network."""
        return trains_all(self.strategy)

    def sentence(self, outcome: Outcome, line: Line, lines: list[Line]) -> str:
        probe, metric = strategy(self.strategy).title, self.metric
        value = reached(metric, line["pretrained"])
        there = f"with {labels(line)}, {probe} on the {self.method} encoder reached {value}"
        than = f"that network trained from scratch on the same labels{self._weak(line)}"
        random = f"{gain(line, '')} than {than if self.alone else 'on the same network untrained'}"
        both = f"{there}, {random}"
        if self.other and not self.alone:
            both += f" and {gain(line, self.other)} than {LONG[self.other]}{self._weak(line)}"
        if outcome == "helped":
            return f"Pretraining helped: {both}{self._harm(line, lines)}."
        if outcome == "partly":
            return f"Pretraining improved the encoder; {self._open(lines)}: {both}{self._harm(line, lines)}."
        if outcome == "worse":
            return f"Pretraining did not help, it did harm: {there}, {random}."
        if outcome == "no_gain":
            of = "" if "scale" in line else f" of {METRIC_TITLES[metric]}"
            baseline = "trained from scratch" if self.alone else "untrained"
            return (
                f"No evidence that pretraining helped: at no label budget did {probe} gain more over the same network "
                f"{baseline} than {self._margin(line)}{of}; the most it could be is {interval(line, '')}, with "
                f"{labels(line)}."
            )
        if outcome == "too_few" and few_seeds(line):
            return (
                f"Too few seeds ({line['num_seeds']}) for an answer: {both}; at least {FEW_SEEDS} are needed "
                "(transfer.seeds)."
            )
        if outcome == "too_few":
            return f"Too few test groups ({self.test_groups}) for an answer: {both}; at least {FEW_GROUPS} are needed."
        if self.alone and line["label_fraction"] in self.early and judge(line, "") == "better":
            return f"Whether pretraining helped is open without a fair baseline; raise transfer.scratch.steps: {both}."
        if judge(line, "") == "better":
            return (
                f"Pretraining improved the encoder; whether by the {self._margin(line)} that matter, the test cannot "
                f"tell: {there}, {random}."
            )
        return f"No evidence that pretraining helped, and none against it: {there}, {random}; the test cannot tell."

    def _margin(self, line: Line) -> str:
        """What matters: points of a share, or a share of what always saying the mean reaches."""
        if "scale" in line:
            return f"{100 * self.margin:g}% of the {METRIC_TITLES[self.metric]} that the mean alone reaches"
        return apart(self.metric, self.margin)

    def _open(self, lines: list[Line]) -> str:
        """What the comparisons with the other baseline say, at all budgets, where the encoder helped at none."""
        name = SHORT[self.other]
        better = [other for other in lines if judge(other, self.other) == "better"]
        fair = [other for other in better if other["label_fraction"] not in self.early]
        worse = [other for other in lines if judge(other, self.other) == "worse"]
        if worse:
            return f"{name} was better with {_budgets(worse)}"
        if any(beats(other, self.other, self.margin) for other in fair):
            return f"it beat the untrained network and {name}, but not both at one label budget"
        if fair:
            return f"its gain over {name} with {_budgets(fair)} is below {self._margin(fair[0])}"
        if better:
            return (
                f"it beat the untrained network, and training from scratch {unfinished(self.metric)} within "
                f"transfer.scratch.steps with {_budgets(better)}, so that comparison is open"
            )
        return f"whether that is more than {name} gives, the test cannot tell"

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
        seeds = f" ({line['num_seeds']} of the {FEW_SEEDS} seeds that an answer needs)" if few_seeds(line) else ""
        first = f"With {labels(line)}: {written(self.metric, line['pretrained'])}{seeds}."
        if not self.alone:
            first += f" Against the untrained network {interval(line, '')}: {JUDGEMENTS[judge(line, '')]}."
        if not self.other:
            return first
        judged = JUDGEMENTS[judge(line, self.other)]
        if judged == "better" and line["label_fraction"] in self.early:
            judged = JUDGEMENTS["open"]
        return f"{first} Against {SHORT[self.other]}{self._weak(line)} {interval(line, self.other)}: {judged}."

    def _weak(self, line: Line) -> str:
        return f" (which {unfinished(self.metric)})" if line["label_fraction"] in self.early else ""


def _budgets(lines: Sequence[Line]) -> str:
    """`1% of the labels (13) and all labels (1,258)`."""
    return " and ".join(labels(line) for line in lines)
