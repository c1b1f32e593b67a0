"""What the method `combined` is put together from, as a recipe says it.

pretrain: {method: {name: combined, objectives: {simclr: {temperature: 0.2}, rotation: {loss_weight: 0.5}}}}

Imports no torch: a cached run asks for the versions of the methods and pays for nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from ssl_tasks.config import explain

COMBINED = "combined"
KEY = "pretrain.method.objectives"


class Objective(BaseModel):
    """A method's weight in the sum, and its options as they would stand below `pretrain.method`."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)
    loss_weight: float = Field(1.0, gt=0)

    def options(self, name: str) -> dict[str, Any]:
        """Name and options of the method."""
        return {**(self.model_extra or {}), "name": name}


def default_objectives() -> Any:
    """Of `combined` where nothing is said: what images share with themselves, and how they stand."""
    return {"simclr": {}, "rotation": {}}


def _given(value: Any) -> Any:
    """`{simclr, rotation}`, which YAML reads as names without a value, takes the defaults of both."""
    return {} if value is None else value


def _combinable(value: dict[str, Objective]) -> dict[str, Objective]:
    if len(value) < 2:
        raise ValueError(f"combine two methods or more (got {', '.join(value) or 'none'})")
    if COMBINED in value:
        raise ValueError(f"{COMBINED} combines no combination; name the methods that it is made of here")
    for name, objective in value.items():
        if "name" in (objective.model_extra or {}):
            raise ValueError(f"{name}.name: each method stands below its own name; leave it out")
    return value


Objectives = Annotated[dict[str, Annotated[Objective, BeforeValidator(_given)]], AfterValidator(_combinable)]
"""By the names of their methods."""
_OBJECTIVES: TypeAdapter[dict[str, Objective]] = TypeAdapter(Objectives)


def objectives(options: Mapping[str, Any]) -> dict[str, Objective]:
    """The objectives among a method's options, in order; none of any method but `combined`.

    Raises:
        RequestError: they are no mapping of two or more methods with their options.
    """
    if options["name"] != COMBINED:
        return {}
    try:
        return _OBJECTIVES.validate_python(options.get("objectives", default_objectives()))
    except ValidationError as error:
        raise explain(error, Objective, section=KEY) from error
