"""Recipe: everything that decides the embedded model's weights, but for how long it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.embedded.build import Size
from training.embedded.start import Origin

START = (
    Origin(0),
    Origin(1),
    Origin(2, heads=(0, 1), mlp=False),
    Origin(2, heads=(2, 3)),
    Origin(4, heads=(2, 3), mlp=False),
    Origin(4, heads=(0, 1)),
    Origin(5, mlp=False),
    Origin(5, heads=()),
    Origin(7, mlp=False),
    Origin(7, heads=()),
    Origin(8),
    Origin(11),
)
"""The layers of the release before that were worth most, four of them as two layers each: a part in the
first and the rest in the second. The four that it could spare (3, 6, 9, 10) are left out."""


@dataclass(frozen=True)
class VisionRecipe:
    """How the vision tower is pretrained: AdamW, one cycle, `batch` scenes a step."""

    steps: int = 300
    batch: int = 64
    lr: float = 1e-3


@dataclass(frozen=True)
class Recipe:
    """How the embedded model is trained; the defaults, with seed 1, made the shipped one.

    Attributes:
        size: the architecture; all layers are there from the first step.
        vision: how the vision tower is pretrained, before it is frozen.
        start: what every layer starts as, of an earlier release; None is a fresh one. If empty, everything is
            fresh: the vision tower is pretrained and the projector aligned.
        align: steps of the projector's alignment.
        early: steps with many captions and drills; fewer come after them.
        warmup: steps of linear warm-up.
        batch: scenes a step.
        context: tokens a scene at most, filled with as many questions as fit.
        lr, muon_lr: peak learning rates of AdamW and of Muon.
        weight_decay: on the matrices Muon trains.
        seed: draws the weights, the scenes and the questions.
    """

    size: Size = field(default_factory=Size)
    vision: VisionRecipe = field(default_factory=VisionRecipe)
    start: tuple[Origin | None, ...] = START
    align: int = 300
    early: int = 0
    warmup: int = 20
    batch: int = 16
    context: int = 128
    lr: float = 6e-4
    muon_lr: float = 0.01
    weight_decay: float = 0.05
    seed: int = 0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """The inverse of dataclasses.asdict."""
        nested = {
            "size": Size(**data["size"]),
            "vision": VisionRecipe(**data["vision"]),
            "start": tuple(_origin(entry) for entry in data["start"]),
        }
        return cls(**{**data, **nested})


def _origin(data: dict[str, Any] | int | None) -> Origin | None:
    if data is None:
        return None
    if isinstance(data, int):  # as written before a layer could be taken in parts
        return Origin(data)
    heads = data["heads"]
    return Origin(data["layer"], None if heads is None else tuple(heads), data["mlp"])
