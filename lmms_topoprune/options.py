"""What a user may ask for, written once for the Python API, model_args and click."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields
from typing import Any

from lmms_topoprune import registry
from lmms_topoprune.errors import OptionError, shown, unknown
from lmms_topoprune.heal_options import HealingOptions, allowed_values, as_kind
from lmms_topoprune.plan import parse_layers

log = logging.getLogger(__name__)

CHOICES = {
    "selection": ("auto", "rank", "block", "path", "threshold"),
    "state": ("auto", "residual", "norm"),
    "points": ("samples", "tokens"),
    "token": ("last", "ret", "mean_image", "mean_text", "mean"),
    "metric": ("euclidean", "cosine"),
    "on_error": ("raise", "record"),
}
NO_REPAIR = NO_HEALING = "none"
AUTO = "auto"
LEAST = {
    "samples": 3,
    "point_count": 8,
    "calibration_batch": 1,
    "seed": 0,
    "protect_first": 0,
    "protect_last": 0,
    "trials": 0,
}
LEAST_TRIED = 16
"""With fewer samples a criterion that tries sets of layers by default tries none: the loss would be noise."""
MOST_TRIALS = 10_000  # as many as a plan file holds


@dataclass(frozen=True)
class _Own:
    """Stands in for what the criterion has of its own; no made PruningOptions holds it."""

    general: Any

    def __repr__(self) -> str:
        return f"{self.general!r} or the criterion's own"


def _own(general: Any) -> Any:
    """A default that a criterion may replace by its own."""
    return _Own(general)


@dataclass(frozen=True)
class PruningOptions:
    """Options of one pruning run.

    What is left out is the criterion's own default: `PruningOptions(criterion="topovlm").token` is "ret".
    `dataclasses.replace` keeps what there is, also under another criterion, such as the default's 32 trials.

    Attributes:
        sparsity: share of the decoder layers to drop, 0 <= s < 1; round(s * L) layers go; "auto" for as many
            as `tolerance` allows.
        drop: how many layers to drop instead.
        parameters: how many the whole model may have instead, such as 5.5e9; no more layers go than have to.
        tolerance: how much worse sparsity="auto" may make the model: by how many nats the loss of a
            calibration token may rise, such as 0.1, or which share of the dense model's answers may change,
            such as 5%.
        layers: an explicit list such as "3-5+9" instead of a criterion.
        plan: a plan file to reuse instead of a criterion.
        criterion: a name that `topoprune criteria` lists, "reverse:NAME", "package.module:function" or
            "file.py:function".
        selection: how scores become a set of layers; "auto" is the criterion's own rule.
        dimension: homology dimension, 0 or 1.
        k: neighbors in the k-nearest-neighbor graph; several joined by +, such as "5+10".
        metric: distance of the neighbor graph.
        alpha: exponent of |l - j| in the averaged inter-layer persistence.
        eps: the threshold rule drops layers with a score of at least eps * max.
        state: "residual" (decoder-layer inputs), "norm" (outputs of post_attention_layernorm) or
            "auto" (what the criterion's paper uses).
        points: "samples": one point a sample and state, at its `token`; "tokens": tokens drawn from all.
        token: which token stands for a sample.
        point_count: how many tokens are drawn, for points="tokens".
        image_share: which share of them are image tokens, where there are any.
        calibration: "embedded", a JSONL file, a folder of images, "hf:name" or "task:name:split".
        samples: number of calibration samples.
        calibration_batch: samples in one calibration forward pass.
        calibration_strict: a broken image or row of the calibration set stops the run instead of being
            skipped.
        calibration_forced: calibrate on documents that are evaluated as well; the plan says so.
        seed: draws the samples, and the layers of the random criterion.
        protect_first: how many layers at the front are never dropped.
        protect_last: how many layers at the end are never dropped.
        protect_massive: layers that write massive activations are never dropped.
        trials: how many sets of layers are tried at most: those that several criteria propose, then swaps of
            single layers; the loss on the first 64 calibration samples without them decides. A criterion that
            tries some by default tries none with fewer than 16 samples.
        repair: "linear" maps, "rescale" scales what is left so that the deleted layers are missed less;
            without training, on the same calibration samples.
        heal: training steps on the dense model's own answers, such as "200", or settings of HealingOptions
            joined by +, such as "steps=200+method=full"; after the repair, if there is one.
        on_error: "raise" stops at a failed generation, "record" counts it and reports it.
        self_test: check a pruned model before it is evaluated.
    """

    sparsity: float | str = 0.0
    drop: int | None = None
    parameters: float | None = None
    tolerance: str = "0.1"
    layers: str | None = None
    plan: str | None = None
    criterion: str = "zigzag_trials"
    selection: str = "auto"
    dimension: int = _own(1)
    k: str = _own("5")
    metric: str = _own("euclidean")
    alpha: float = _own(0.0)
    eps: float = _own(0.9)
    state: str = "auto"
    points: str = _own("samples")
    token: str = _own("last")
    point_count: int = _own(1024)
    image_share: float = 0.5
    calibration: str = "embedded"
    samples: int = _own(512)
    calibration_batch: int = 8
    calibration_strict: bool = False
    calibration_forced: bool = False
    seed: int = 0
    protect_first: int = _own(1)
    protect_last: int = _own(1)
    protect_massive: bool = _own(False)
    trials: int = _own(0)
    repair: str = "none"
    heal: str = "none"
    on_error: str = "raise"
    self_test: bool = True

    def __post_init__(self) -> None:
        self._check_type("criterion", "str")
        for name, value in own_defaults(self.criterion).items():
            if isinstance(getattr(self, name), _Own):
                object.__setattr__(self, name, value)
                if name == "trials" and value:
                    self._without_noise()
        for field in fields(self):
            self._check_type(field.name, str(field.type))
        if self.sparsity != AUTO and not 0 <= self.share < 1:
            raise OptionError(f"sparsity is {self.sparsity}; allowed: 0 <= sparsity < 1, or auto")
        if self.drop is not None and self.drop < 1:
            raise OptionError(f"drop is {self.drop}; allowed: whole numbers from 1")
        if self.parameters is not None and not 0 < self.parameters < math.inf:
            raise OptionError(f"parameters is {self.parameters}; allowed: numbers above 0, such as 5.5e9")
        _ = self.allowed_rise
        if self.layers is not None:
            parse_layers(self.layers)
        given = [n for n in ("drop", "parameters", "layers", "plan") if getattr(self, n) is not None]
        if self.sparsity != 0:
            given.insert(0, "sparsity")
        if len(given) > 1:
            raise OptionError(f"{' and '.join(given)} are given together; pass one of them")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown(name, getattr(self, name), allowed)
        self._check_repair()
        _ = self.healing
        if self.dimension not in (0, 1):
            raise OptionError(f"dimension is {self.dimension}; allowed: 0, 1")
        if not 0 < self.eps <= 1:
            raise OptionError(f"eps is {self.eps}; allowed: 0 < eps <= 1")
        if not math.isfinite(self.alpha):
            raise OptionError(f"alpha is {self.alpha}; allowed: any finite number")
        for name, low in LEAST.items():
            if getattr(self, name) < low:
                raise OptionError(f"{name} is {getattr(self, name)}; allowed: whole numbers from {low}")
        if self.trials > 1 and self.criterion.startswith(registry.REVERSE):
            raise OptionError(
                f"trials is {self.trials} with criterion {self.criterion!r}, which a search would turn round "
                "again; allowed: 0, 1"
            )
        if self.trials > MOST_TRIALS:
            raise OptionError(f"trials is {self.trials}; allowed: whole numbers from 0 to {MOST_TRIALS}")
        if not 0 <= self.image_share <= 1:
            raise OptionError(f"image_share is {self.image_share}; allowed: 0 <= image_share <= 1")
        name = "samples" if self.points == "samples" else "point_count"
        if min(self.ks) < 1 or max(self.ks) >= getattr(self, name):
            raise OptionError(f"k is {shown(self.k)}; allowed: 1 <= k < {name} ({getattr(self, name)})")

    def _without_noise(self) -> None:
        samples = self.samples
        if isinstance(samples, int) and samples < LEAST_TRIED:
            object.__setattr__(self, "trials", 0)
            if self.plan is None and self.layers is None:
                log.warning("samples is %d: too few for trials, so the scores alone decide", samples)

    @property
    def healing(self) -> HealingOptions | None:
        """How the pruned model is trained; None if it is not."""
        return None if self.heal == NO_HEALING else HealingOptions.parse(self.heal)

    def _check_repair(self) -> None:
        if registry.is_reference(self.repair):
            registry.get_repair(self.repair)
        elif self.repair != NO_REPAIR and self.repair not in registry.repair_names():
            raise unknown("repair", self.repair, (NO_REPAIR, *registry.repair_names()))

    def _check_type(self, name: str, wanted: str) -> None:
        """Accept what a command line or model_args can hand over, and nothing looser."""
        value, kind = getattr(self, name), wanted.split(" ")[0]
        if (value is None and "None" in wanted) or (name == "sparsity" and value == AUTO):
            return
        try:
            object.__setattr__(self, name, as_kind(kind, value))
        except (TypeError, ValueError, OverflowError):
            allowed = allowed_values(kind, LEAST.get(name))
            raise OptionError(f"{name} is {shown(value)}; allowed: {allowed}") from None

    @property
    def ks(self) -> tuple[int, ...]:
        """`k` as whole numbers.

        Raises:
            OptionError: it is something else.
        """
        try:
            return tuple(int(part) for part in self.k.split("+"))
        except ValueError:
            raise OptionError(
                f"k is {shown(self.k)}; allowed: a whole number or several joined by +, such as 5+10"
            ) from None

    @property
    def share(self) -> float:
        """The sparsity as a number; 0 where there is none to begin with."""
        return 0.0 if self.sparsity == AUTO else float(self.sparsity)

    @property
    def says_how_many(self) -> bool:
        """Whether a number of layers is asked for, in whichever way."""
        return self.sparsity != 0 or self.drop is not None or self.parameters is not None

    @property
    def allowed_rise(self) -> tuple[str, float]:
        """What `tolerance` speaks of, "loss" or "answers", and how much of it, in nats or as a share.

        Raises:
            OptionError: it is neither.
        """
        text = self.tolerance.strip()
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = math.nan
        share = text.endswith("%")
        if not (0 <= value <= 100 if share else 0 <= value < math.inf):
            raise OptionError(
                f"tolerance is {shown(self.tolerance)}; allowed: a rise of the loss from 0, such as 0.1, or "
                "a share of the answers from 0% to 100%"
            )
        return ("answers", value / 100) if share else ("loss", value)

    def drop_count(self, layers: int) -> int:
        """How many of `layers` decoder layers go: round(sparsity * layers), half to even, or `drop`."""
        return round(self.share * layers) if self.drop is None else self.drop

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in fields(cls))

    @classmethod
    def take(cls, arguments: dict[str, Any], **defaults: Any) -> PruningOptions:
        """Pop this class's options out of `arguments`; `defaults` stand where nothing is given."""
        return cls(**{**defaults, **{n: arguments.pop(n) for n in cls.names() if n in arguments}})


def own_defaults(criterion: str) -> dict[str, Any]:
    """The options that hang on the criterion, as it has them when nothing is given.

    Raises:
        OptionError: no such criterion, or it has a default of its own that no criterion can have.
    """
    general = {f.name: f.default.general for f in fields(PruningOptions) if isinstance(f.default, _Own)}
    own = dict(registry.get(criterion).defaults)
    for name in own:
        if name not in general:
            raise unknown(f"a default of criterion {criterion}", name, general)
    return general | own
