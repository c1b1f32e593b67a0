"""What a recipe may say of the strategies that train networks: sections of `transfer`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ssl_tasks.config import Config

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
    layer_decay: float = Field(0.75, gt=0, le=1)
    """What `layer_decay` multiplies the learning rate by, layer by layer from the head down."""
    lora_rank: int = Field(4, ge=1)
    lora_alpha: float = Field(8.0, gt=0)
    """LoRA's update is scaled by alpha over rank."""


class Options(Config):
    """What strategies that train networks are told; `TransferConfig` is one."""

    scratch: ScratchConfig = ScratchConfig()
    tune: TuneConfig = TuneConfig()
