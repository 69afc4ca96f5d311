"""How a pruned model is healed, as a user may ask for it; and what a value of an option may look like."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lmms_topoprune.errors import OptionError, shown, unknown

METHODS = ("lora", "full")
MOST_RANK = 1024
LEAST = {"steps": 1, "rank": 1, "batch": 1, "check_every": 1, "patience": 0}
PEAK = {"lora": 5e-4, "full": 5e-5}
ALLOWED = {"str": "text", "float": "a number", "int": "a whole number", "bool": "True, False"}


@dataclass(frozen=True)
class HealingOptions:
    """How a pruned model is trained on the dense model's own answers.

    Attributes:
        steps: optimizer steps.
        method: "lora" trains low-rank updates of every linear map of the decoder layers that stay (Hu et
            al. 2022, arXiv 2106.09685), which are merged at the end; "full" trains these layers themselves.
        rank: of the low-rank updates.
        learning_rate: peak of AdamW's learning rate; by default 5e-4 with LoRA and 5e-5 without.
        batch: samples a step and process.
        seam_weight: weight of the hidden states behind every cut beside the logits; 0 leaves them out.
        held_out: share of the samples that is never trained on and decides when to stop.
        check_every: steps between two looks at the held-out share, each with a checkpoint.
        patience: looks without an improvement after which training stops; 0 never stops early.
        checkpointing: recompute activations instead of keeping them: less memory, a third more time.
    """

    steps: int = 200
    method: str = "lora"
    rank: int = 16
    learning_rate: float | None = None
    batch: int = 8
    seam_weight: float = 1.0
    held_out: float = 0.1
    check_every: int = 25
    patience: int = 4
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = str(field.type).split(" ")[0]
            value, low = getattr(self, field.name), LEAST.get(field.name)
            if value is None and "None" in str(field.type):
                continue
            try:
                object.__setattr__(self, field.name, as_kind(kind, value))
            except (TypeError, ValueError, OverflowError):
                raise OptionError(
                    f"heal {field.name} is {shown(value)}; allowed: {allowed_values(kind, low)}"
                ) from None
            if low is not None and getattr(self, field.name) < low:
                raise OptionError(
                    f"heal {field.name} is {shown(value)}; allowed: {allowed_values(kind, low)}"
                )
        if self.method not in METHODS:
            raise unknown("heal method", self.method, METHODS)
        if self.rank > MOST_RANK:
            raise OptionError(f"heal rank is {self.rank}; allowed: whole numbers from 1 to {MOST_RANK}")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise OptionError(f"heal learning_rate is {self.learning_rate}; allowed: between 0 and 1")
        if not 0 <= self.seam_weight < math.inf:
            raise OptionError(f"heal seam_weight is {self.seam_weight}; allowed: 0 or more")
        if not 0 < self.held_out <= 0.5:
            raise OptionError(f"heal held_out is {self.held_out}; allowed: 0 < held_out <= 0.5")

    @property
    def peak(self) -> float:
        """The peak learning rate."""
        return self.learning_rate or PEAK[self.method]

    @classmethod
    def parse(cls, text: str) -> HealingOptions:
        """From "steps=200+rank=8"; a number alone is the steps.

        Raises:
            OptionError: no such setting, or not a value of its type.
        """
        text = f"steps={text}" if text.isdecimal() else text
        kinds = {field.name: str(field.type).split(" ")[0] for field in fields(cls)}
        given: dict[str, Any] = {}
        for part in re.split(r"\+(?!\d)", text):  # the + of 1e+5 joins nothing
            name, equals, value = part.partition("=")
            if not equals:
                raise OptionError(
                    f"heal holds {shown(part)}; allowed: none, a number of steps, or settings joined by +, "
                    "such as steps=200+rank=8"
                )
            if name not in kinds:
                raise unknown("heal setting", name, kinds)
            given[name] = _read(name, value, kinds[name])
        return cls(**given)

    @classmethod
    def of_plan(cls, facts: Mapping[str, Any]) -> HealingOptions:
        """As a plan tells them among other facts; a method's usual learning rate is nobody's choice."""
        told = {name: value for name, value in facts.items() if name in cls.names()}
        if told.get("learning_rate") == PEAK.get(told.get("method", "")):
            told["learning_rate"] = None
        return cls(**told)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))

    @property
    def text(self) -> str:
        """The steps and whatever is not the default, so that `parse` reads it."""
        changed = {
            f.name: getattr(self, f.name) for f in fields(self)[1:] if getattr(self, f.name) != f.default
        }
        if self.peak == PEAK[self.method]:
            changed.pop("learning_rate", None)
        return "+".join(f"{name}={value}" for name, value in {"steps": self.steps, **changed}.items())

    def to_json(self) -> dict[str, Any]:
        """Every option, the learning rate as it is used."""
        return {**asdict(self), "learning_rate": self.peak}


def _read(name: str, text: str, kind: str) -> Any:
    """A setting of a healing from text."""
    try:
        return from_text(kind, text)
    except ValueError:
        raise OptionError(
            f"heal {name} is {shown(text)}; allowed: {allowed_values(kind, LEAST.get(name))}"
        ) from None


def from_text(kind: str, text: str) -> Any:
    """A value of that type as a person writes it.

    Raises:
        ValueError: it is none.
    """
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return {"int": int, "float": float}.get(kind, str)(text)


def allowed_values(kind: str, low: int | None) -> str:
    return ALLOWED[kind] if low is None else f"whole numbers from {low}"


def as_kind(kind: str, value: Any) -> Any:
    """The value as that type; TypeError if it is none, and no number of 400 digits is a float."""
    taken = {"str": (str, int, float), "float": (int, float), "int": (int,), "bool": (bool,)}[kind]
    if not isinstance(value, taken) or (kind != "bool" and isinstance(value, bool)):
        raise TypeError
    return {"str": str, "float": float}.get(kind, lambda same: same)(value)
