"""PruningPlan: which decoder layers go, and everything that decided it; and the schema of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError, OptionError, shown

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


SCHEMA = "topoprune-plan/1"
FITTED = {"method", "version", "source", "samples", "seed", "fingerprint"}
REPAIR, HEALING = {*FITTED, "ridge"}, {*FITTED, "steps"}


def parse_layers(text: str) -> tuple[int, ...]:
    """Read a list of layers such as "3-5+9" (ends included) into (3, 4, 5, 9).

    Raises:
        OptionError: the text is not of that form, or a range runs backwards.
    """
    found: set[int] = set()
    for part in str(text).split("+"):
        # No decoder has so many layers that their number takes six digits.
        match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise OptionError(
                f"layers is {shown(text)}; allowed: layers and ranges joined by +, such as 3-5+9"
            )
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(found))


def format_layers(layers: Iterable[int]) -> str:
    """The inverse of parse_layers; "none" for no layers."""
    parts = (f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs(layers))
    return "+".join(parts) or "none"


def runs(layers: Iterable[int]) -> list[range]:
    """Neighboring layers together, ascending: (0, 1, 4) becomes [range(0, 2), range(4, 5)]."""
    found: list[range] = []
    for layer in sorted({*layers}):
        if found and found[-1].stop == layer:
            found[-1] = range(found[-1].start, layer + 1)
        else:
            found.append(range(layer, layer + 1))
    return found


@dataclass(frozen=True)
class PruningPlan:
    """Which decoder layers of which model are dropped, and why.

    Attributes:
        model: name or path the model was loaded from.
        fingerprint: hash of the model's weights and configuration.
        layers: number of decoder layers before deletion.
        dropped: layers to delete, ascending, counted from 0 in the dense model.
        criterion: registered name of the criterion ("given" for an explicit list).
        parameters: every parameter of the criterion and the selection.
        calibration: source, fingerprint, samples, seed, token and state of the calibration set.
        repair: method, parameters and calibration set of the repair; empty without one.
        heal: settings, teacher and calibration set of the training after it; empty without one.
        scores: one number a layer, higher is dropped earlier; None if the criterion has none.
        versions: versions of Python and of the packages that took part.
        stages: stage name -> {"seconds": ..., "peak_bytes": ...}; "heal" has steps, tokens and losses too.
        trials: every measured set of layers of a plan that was settled by the loss, in order: {"by": the
            criterion that proposed it, or "swap", "dropped": its layers, "loss": mean of the calibration
            tokens}. Besides "kept": share of the dense model's answers that stay, "how": the settings, or the
            layers that were swapped, "also": others that proposed the same layers.
    """

    model: str
    fingerprint: str
    layers: int
    dropped: tuple[int, ...]
    criterion: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    scores: tuple[float, ...] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    repair: Mapping[str, Any] = field(default_factory=dict)
    trials: tuple[Mapping[str, Any], ...] = ()
    heal: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dropped = tuple(sorted(set(self.dropped)))
        object.__setattr__(self, "dropped", dropped)
        outside = [layer for layer in dropped if not 0 <= layer < self.layers]
        if outside:
            raise InputError(
                f"layer {outside[0]} does not exist; the model has layers 0 to {self.layers - 1}"
            )
        if len(dropped) >= self.layers:
            raise InputError(f"the plan drops all {self.layers} layers; at least one has to stay")
        if self.scores is not None and len(self.scores) != self.layers:
            raise InputError(f"the plan has {len(self.scores)} scores for {self.layers} layers")
        if self.repair and (missing := REPAIR - set(self.repair)):
            raise InputError(f"the plan's repair lacks {min(missing)}")
        if self.heal and (missing := HEALING - set(self.heal)):
            raise InputError(f"the plan's healing lacks {min(missing)}")

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(layer for layer in range(self.layers) if layer not in set(self.dropped))

    @property
    def changes_weights(self) -> bool:
        """Whether it does more than delete layers."""
        return bool(self.repair or self.heal)

    @property
    def is_trained(self) -> bool:
        """Whether it is healed, unless that is known to have brought nothing."""
        return bool(self.heal) and self.stages.get("heal", {}).get("kept") != 0

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the samples came from that have a say in it."""
        parts = (self.calibration, self.repair, self.heal)
        return tuple(dict.fromkeys(str(facts["source"]) for facts in parts if "source" in facts))

    @property
    def sparsity(self) -> float:
        return len(self.dropped) / self.layers

    @property
    def hash(self) -> str:
        """Names the pruned model and its provenance; timings and versions do not enter."""
        return files.digest(
            [
                SCHEMA,
                self.fingerprint,
                self.layers,
                self.dropped,
                self.criterion,
                dict(self.parameters),
                dict(self.calibration),
                *([dict(self.repair)] if self.repair else []),
                *([{"heal": dict(self.heal)}] if self.heal else []),
            ]
        )

    def __str__(self) -> str:
        repair = f"{self.repair['method']} repair, " if self.repair else ""
        repair += f"{self.heal['steps']} steps of healing, " if self.heal else ""
        tried = f"best of {len(self.trials)} trials, " if len(self.trials) > 1 else ""
        return (
            f"{self.criterion}: drop {len(self.dropped)} of {self.layers} layers "
            f"({format_layers(self.dropped)}), {tried}{repair}plan {self.hash}"
        )

    @property
    def massive_dropped(self) -> tuple[int, ...]:
        """Of the dropped layers, those that write massive activations, as far as the pass has seen them."""
        try:
            return tuple(sorted({*parse_layers(self.parameters["massive"])} & {*self.dropped}))
        except (KeyError, OptionError):  # none, or whatever somebody else wrote there
            return ()

    @property
    def winner(self) -> Mapping[str, Any] | None:
        """The trial that decided; None without trials."""
        return min(self.trials, key=lambda trial: float(trial["loss"]), default=None)

    def with_stages(self, **stages: Mapping[str, float]) -> PruningPlan:
        return replace(self, stages={**self.stages, **stages})

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "hash": self.hash, **asdict(self), "kept": list(self.kept)}

    def save(self, path: Path | str) -> None:
        files.write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> PruningPlan:
        """Read a plan file.

        Raises:
            InputError: no such file, not JSON, another schema, a field that plan.py does not allow
                (named), or edited after saving.
        """

        name, data = shown(str(path)), _read(path)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else None
            raise InputError(f"plan {name} has schema {shown(found)}; this version reads {SCHEMA!r}")
        if wrong := problem(data):
            raise InputError(f"plan {name} {wrong}")
        fields = {k: v for k, v in data.items() if k not in ("schema", "hash", "kept", "run")}
        try:
            lists = {"scores": _scores(fields.get("scores")), "trials": tuple(fields.get("trials", ()))}
            plan = cls(**{**fields, **lists})
            same = data["hash"] == plan.hash
        except InputError as error:
            raise InputError(f"plan {name} cannot be used: {error}") from None
        except (ValueError, RecursionError) as error:  # NaN or too deep, in what the hash is made of
            raise InputError(f"plan {name} cannot be used: {shown(error)}") from None
        if not same:
            raise InputError(f"plan {name} was changed after it was saved: its hash does not match")
        return plan


def healing_told(plan: PruningPlan) -> str:
    """A healing in one line: teacher, steps and, once it is done, tokens and losses; empty without one."""
    if not plan.heal:
        return ""
    asked, done = plan.heal, plan.stages.get("heal", {})
    steps, by = done.get("steps", asked["steps"]), f"({asked['method']}) by {asked.get('teacher')}"
    text = f"healed in {steps:g} step{'' if steps == 1 else 's'} {by}"
    kept = ""
    if done.get("kept", steps) < steps:
        kept = (
            f"; the weights after step {done['kept']:g} were kept" if done["kept"] else "; it gained nothing"
        )
    if not {"tokens", "loss_before", "loss_after"} <= done.keys():
        return text + kept
    losses = f"{done['loss_before']:.4g} to {done['loss_after']:.4g}"
    return f"{text} on {done['tokens']:.0f} tokens{kept}; loss on held-out samples {losses}"


def _read(path: Path | str) -> Any:
    """The JSON value in a plan file."""
    name = shown(str(path))
    try:
        return json.loads(files.read_bytes(Path(path)).decode())
    except OSError as error:
        raise InputError(f"plan {name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if "null" in str(error):  # in the path, not in the file
            raise InputError(f"plan {name} cannot be read: no such file") from None
        raise InputError(f"plan {name} is not valid JSON") from None


def _scores(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)
