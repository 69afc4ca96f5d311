"""What planning keeps in the cache, as pydantic models: an entry that holds something else is damaged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
)

from lmms_topoprune.plan import Layers, Trial

Cost = dict[str, dict[str, int | FiniteFloat]]


class CalibrationFacts(BaseModel):
    """What a plan says about its calibration set."""

    model_config = ConfigDict(extra="allow")

    source: str
    samples: NonNegativeInt
    seed: int
    fingerprint: str


class Scores(BaseModel):
    """As criteria.scoring.scores_to_json has them."""

    kind: Literal["LayerScores", "PairScores"]
    name: str
    values: list[FiniteFloat] | list[list[FiniteFloat]]
    barcodes: list[dict[str, Any]] = []


class CachedScores(BaseModel):
    """Scores, what they cost, and layers that write massive activations."""

    scores: Scores
    stages: Cost
    massive: Layers


class SettledTrials(BaseModel):
    """What trials settled on."""

    dropped: Layers
    trials: Annotated[list[Trial], Field(min_length=1)]
    stages: Cost


FINGERPRINT = TypeAdapter(Annotated[str, Field(pattern="^[0-9a-f]{16}$")])
Loss = tuple[FiniteFloat, PositiveInt, NonNegativeInt, PositiveInt]


def _possible(loss: Loss) -> Loss:
    if loss[2] > loss[3]:
        raise ValueError(f"{loss[2]} of {loss[3]} answers are kept")
    return loss


LOSSES = TypeAdapter(dict[str, Annotated[Loss, AfterValidator(_possible)]])
"""Layers -> the fields of Predictions."""
