"""Recipe: everything that decides the trained weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmms_topoprune.embedded import build


@dataclass(frozen=True)
class VisionRecipe:
    """How the vision tower is pretrained: AdamW, one cycle, `batch` scenes a step."""

    steps: int = 300
    batch: int = 64
    lr: float = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How the embedded model is trained; the defaults made the shipped one.

    Attributes:
        size: the architecture.
        vision: how the vision tower is pretrained, before it is frozen.
        shallow_layers: decoder layers before the growth.
        shallow_steps, deep_steps: optimizer steps before and after it.
        decay_steps: the last steps, over which the learning rates fall to zero.
        warmup: steps of linear warm-up, at the start and after the growth.
        batch: scenes a step.
        context: tokens a scene, filled with as many questions as fit.
        lr, muon_lr: peak learning rates of AdamW and of Muon.
        weight_decay: on the matrices Muon trains.
        seed: draws the weights, the scenes and the questions.
    """

    size: build.Size = field(default_factory=build.Size)
    vision: VisionRecipe = field(default_factory=VisionRecipe)
    shallow_layers: int = 6
    shallow_steps: int = 2600
    deep_steps: int = 700
    decay_steps: int = 400
    warmup: int = 200
    batch: int = 32
    context: int = 128
    lr: float = 6e-4
    muon_lr: float = 0.01
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.shallow_steps + self.deep_steps

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """The inverse of dataclasses.asdict."""
        nested = {"size": build.Size(**data["size"]), "vision": VisionRecipe(**data["vision"])}
        return cls(**{**data, **nested})
