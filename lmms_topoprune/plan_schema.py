"""What a plan file may hold, as a pydantic model; docs/plan.schema.json is made from it by

python -m lmms_topoprune.plan_schema > docs/plan.schema.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from lmms_topoprune.errors import shown

# No decoder has more layers than this; a count in a file bounds what is made of it.
MOST_LAYERS = 10_000
Layer = Annotated[int, Field(ge=0, lt=MOST_LAYERS)]
Layers = Annotated[list[Layer], Field(max_length=MOST_LAYERS)]


class Trial(BaseModel):
    """One measured set of layers."""

    model_config = ConfigDict(strict=True, extra="allow")

    by: str = Field(description="The criterion that proposed it, or `swap`.")
    dropped: Layers = Field(description="Its layers.")
    loss: FiniteFloat = Field(description="Loss of the calibration tokens.")
    kept: FiniteFloat | None = Field(
        default=None, description="Share of the dense model's answers that stay."
    )
    how: str = Field(default="", description="Settings of the criterion, or the layers that were swapped.")
    also: list[str] = Field(default_factory=list, description="Others that proposed the same layers.")


class PlanFile(BaseModel):
    """Which decoder layers of a model are dropped, and everything that decided it."""

    model_config = ConfigDict(strict=True, extra="forbid", title="Pruning plan", protected_namespaces=())

    schema_: Literal["topoprune-plan/1"] = Field(alias="schema", description="Version of this format.")
    hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")] = Field(
        description="Of all fields but scores, versions, stages, trials, kept and run."
    )
    model: str = Field(description="Name or path the model was loaded from.")
    fingerprint: str = Field(description="Hash of the model's weights and configuration.")
    layers: Annotated[int, Field(ge=1, le=MOST_LAYERS)] = Field(
        description="Number of decoder layers before deletion."
    )
    dropped: Layers = Field(description="Layers to delete, counted from 0 in the dense model.")
    criterion: str = Field(description="Name of the criterion; `given` for an explicit list of layers.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Every parameter of criterion and selection."
    )
    calibration: dict[str, Any] = Field(
        default_factory=dict, description="Source, fingerprint, samples, seed, token and state."
    )
    scores: Annotated[list[FiniteFloat], Field(max_length=MOST_LAYERS)] | None = Field(
        default=None, description="One number a layer, higher is dropped earlier."
    )
    versions: dict[str, str] = Field(
        default_factory=dict, description="Versions of Python and of the packages that took part."
    )
    stages: dict[str, dict[str, FiniteFloat]] = Field(
        default_factory=dict,
        description="Seconds and peak bytes of each stage; steps, tokens and losses of a healing.",
    )
    repair: dict[str, Any] = Field(default_factory=dict, description="The repair; empty without one.")
    heal: dict[str, Any] = Field(
        default_factory=dict, description="The training after the deletion; empty without one."
    )
    trials: Annotated[list[Trial], Field(max_length=MOST_LAYERS)] = Field(
        default_factory=list, description="What was measured before the layers were settled, in order."
    )
    kept: Layers | None = Field(default=None, description="The other layers, for people to read.")
    run: dict[str, Any] | None = Field(default=None, description="The evaluation it was left beside.")


def problem(data: Mapping[str, Any]) -> str | None:
    """What is wrong with the first malformed field of a plan file, worded to follow "plan NAME"."""
    try:
        PlanFile.model_validate(data)
    except RecursionError:
        return "is nested too deeply"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            return f"lacks the field {where}"
        if first["type"] == "extra_forbidden":
            return f"has a field {shown(where)}, which no plan has"
        wanted = first["msg"].removeprefix("Input should ")
        return f"has {where} = {shown(first['input'])}, which should {wanted}"
    return None


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of a plan file."""
    schema = PlanFile.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
