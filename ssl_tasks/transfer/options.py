"""What a recipe may say of the strategies that train networks: sections of `transfer`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ssl_tasks.config import Config, artifact_references

Rate = Annotated[float, Field(gt=0)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1)]


class ScratchConfig(Config):
    """How the from-scratch baseline trains."""

    steps: int = Field(100, ge=1)
    """Optimizer steps of one fit, at every label budget."""
    batch_size: int = Field(64, ge=2)
    """Rows of a step, or all labelled rows where there are fewer."""
    learning_rates: Rates = (1e-3, 3e-3, 1e-2)
    """Candidates; where val has no labels, the middle one."""
    weight_decay: float = Field(0.05, ge=0)


class TuneConfig(Config):
    """How the strategies that go on training the encoder do so."""

    steps: int | None = Field(None, ge=1)
    """Optimizer steps of one fit; as many as `scratch.steps` where it is not set, so that both get the same."""
    batch_size: int = Field(64, ge=2)
    """Rows of a step, or all labelled rows where there are fewer."""
    learning_rates: Rates = (3e-4, 1e-3, 3e-3)
    """Candidates; where val has no labels, the middle one."""
    weight_decay: float = Field(0.05, ge=0)
    last_layers: int = Field(1, ge=1)
    """Stages (of a ViT: blocks) at the encoder's end that `last_layers` trains beside the head."""
    first_stages: int = Field(2, ge=1)
    """Stages at the encoder's beginning, the stem among them, that `reuse_stages` keeps; the others begin afresh."""
    layer_decay: float = Field(0.75, gt=0, le=1)
    """What `layer_decay` multiplies the learning rate by, layer by layer from the head down."""
    lora_rank: int = Field(4, ge=1)
    lora_alpha: float = Field(8.0, gt=0)
    """LoRA's update is scaled by alpha over rank."""
    lora_rates: Rates = (3e-3, 1e-2, 3e-2)
    """Learning rates of `lora`, whose few weights want ten times larger ones; candidates as above."""


class DistillConfig(Config):
    """How a small student learns from the encoder; its rates, batches and steps are those of `scratch`."""

    student: str | None = None
    """The student's backbone, a name as in `pretrain.backbone`; the strategies that distill need one."""
    temperature: float = Field(4.0, gt=0)
    """Softens the teacher's and the student's probabilities."""
    weight: float = Field(0.9, ge=0, le=1)
    """Of the teacher's word against that of the labels, where there are any."""


class SurrogateConfig(Config):
    """The decision tree that says in rules what the encoder's probe predicts."""

    max_leaves: int = Field(16, ge=2)
    """Rules at most: more are more faithful and harder to read."""
    max_rows: int = Field(10_000, ge=2)
    """Train rows that the tree is fitted to, evenly from all."""


class Net2NetConfig(Config):
    """How much larger `net2net` makes the encoder, before it is trained as section `tune` says."""

    width: float = Field(1.5, ge=1, le=8)
    """Of the inner layers of each block."""
    depth: int = Field(1, ge=0)
    """Blocks that are put at the end of each stage."""


class DenseConfig(Config):
    """How linear heads on feature maps train, for `task: segmentation` and `localization`."""

    steps: int = Field(200, ge=1)
    """Optimizer steps of one fit."""
    batch_size: int = Field(16, ge=2)
    """Images of a step, or all labelled ones where there are fewer."""
    learning_rates: Rates = (1e-4, 1e-3, 1e-2, 1e-1)
    """Candidates; where val has no targets, the upper one of the middle two."""
    weight_decay: float = Field(0.05, ge=0)


class SoupConfig(Config):
    """What model soups are made of: networks that are fine-tuned from each encoder as section `tune` says.

    `best_tuned`, `greedy_soup` and `uniform_soup` each train theirs anew: all three take three times as long as one.
    """

    orders: int = Field(1, ge=1)
    """Fits of each learning rate of `tune`: batches in another order, and other views."""


class MultiTaskConfig(Config):
    """How `multi_task` weighs the losses of its targets; it trains as section `tune` says."""

    weighting: Literal["equal", "uncertainty", "grad_norm"] = "uncertainty"
    alpha: float = Field(1.5, ge=0)
    """Of `grad_norm`: how strongly a target that is learnt slowly is pulled up."""


class DomainsConfig(Config):
    """Labels from some domains, test rows from another; without it all domains are one."""

    source: tuple[str, ...] = ()
    """Domains whose labels are used; all but the target where none is named."""
    target: str | None = None
    """Domain of the test rows. Its train rows may be used without labels; its val rows choose nothing."""
    leave_one_out: bool = False
    """Every domain is the target once, with all others as sources."""

    @property
    def given(self) -> bool:
        """Whether labels and test rows are of different domains."""
        return self.leave_one_out or self.target is not None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.leave_one_out and (self.source or self.target is not None):
            raise ValueError("leave_one_out makes every domain the target once; leave out source and target, or it")
        if self.source and self.target is None:
            raise ValueError("source is given and target is not; name the domain of the test rows")
        if self.target in self.source:
            raise ValueError(f"{self.target!r} is source and target; the target's labels are for the test alone")
        return self


class AdaptConfig(Config):
    """What the strategies that adapt to a target without labels weigh their penalty by; they train as `tune` says, but
    `dann` at a rate of its own."""

    deep_coral: float = Field(1.0, ge=0)
    mmd: float = Field(1.0, ge=0)
    dann: float = Field(0.1, ge=0)
    """Of the reversed gradient, at the end of its schedule."""
    dann_rates: Rates = (0.01, 0.03, 0.1)
    """Learning rates of `dann`, which trains by SGD and not as `tune` says; candidates as there."""


class Options(Config):
    """What strategies that train networks are told; `TransferConfig` is one."""

    encoders: tuple[str, ...] = artifact_references()
    """Further encoders for the strategies that combine several: runs, or fingerprints or URIs of pretrain artifacts."""

    scratch: ScratchConfig = ScratchConfig()
    tune: TuneConfig = TuneConfig()
    net2net: Net2NetConfig = Net2NetConfig()
    distill: DistillConfig = DistillConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    dense: DenseConfig = DenseConfig()
    soup: SoupConfig = SoupConfig()
    multi_task: MultiTaskConfig = MultiTaskConfig()
    domains: DomainsConfig = DomainsConfig()
    adapt: AdaptConfig = AdaptConfig()

    @field_validator("encoders")
    @classmethod
    def _once_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value) or len(set(value)) < len(value):
            raise ValueError("name each encoder once")
        return value
