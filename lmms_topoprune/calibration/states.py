"""What a calibration pass found, as criteria read it: points of every state, and means over all tokens."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lmms_topoprune._util import files
from lmms_topoprune.calibration.norms import TokenNorms
from lmms_topoprune.errors import InputError, shown

if TYPE_CHECKING:
    import torch


SCHEMA = "topoprune-states/2"
STATE, SUM, NORM = "state.", "sum.", "norm."


@dataclass(frozen=True)
class SavedStates:
    """The states and sums of one calibration pass, and what they are of.

    The file is a safetensors file: `state.residual` and `state.norm` (L + 1, N, d) in the model's precision,
    `norm.largest` and `norm.median` (L + 1,) of all tokens in float64,
    `sum.token_cosine` and `sum.relative_magnitude` (L,) in float64; all else is in its metadata, as JSON.

    Attributes:
        states: "residual" and/or "norm" -> the points of every state.
        sums: means over all tokens.
        norms: of all tokens.
        calibration: what a plan says about the calibration set.
        layers: L.
        model: name or path of the model.
        fingerprint: the model's.
        cost: seconds and peak bytes of the pass.
    """

    states: Mapping[str, HiddenStates]
    sums: TokenSums
    norms: TokenNorms
    calibration: Mapping[str, Any]
    layers: int
    model: str
    fingerprint: str
    cost: Mapping[str, float]

    @property
    def file(self) -> str:
        """The file's name, which hangs on the model and on the calibration set alone."""
        return name_of(self.fingerprint, self.calibration)

    def save(self, folder: Path) -> Path:
        """Write the whole file or nothing; returns where it is.

        Raises:
            InputError: it cannot be written.
        """
        tensors = {STATE + name: found.values.contiguous() for name, found in self.states.items()}
        tensors |= {SUM + name: torch.from_numpy(value) for name, value in self.sums.means.items()}
        tensors |= {NORM + name: torch.from_numpy(value) for name, value in vars(self.norms).items()}
        about = {
            "schema": SCHEMA,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "layers": self.layers,
            "tokens": self.sums.tokens,
            "calibration": dict(self.calibration),
            "cost": dict(self.cost),
            "digest": _digest(tensors),
        }
        path = folder / self.file
        try:
            files.write_bytes(path, save(tensors, {name: json.dumps(value) for name, value in about.items()}))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"the hidden states cannot be written to {shown(str(path))}: {reason}") from None
        return path

    @classmethod
    def load(cls, path: Path) -> SavedStates:
        """Read such a file.

        Raises:
            InputError: it is not there, damaged, or something else.
        """
        try:
            with safe_open(path, "pt") as file:
                about = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["schema"] != SCHEMA or about["digest"] != _digest(tensors):
                raise ValueError("its contents are not what was written")
            states = {n.removeprefix(STATE): v for n, v in tensors.items() if n.startswith(STATE)}
            means = {n.removeprefix(SUM): v.numpy() for n, v in tensors.items() if n.startswith(SUM)}
            return cls(
                {name: HiddenStates(name, values) for name, values in states.items()},
                TokenSums(means, about["tokens"]),
                TokenNorms(*(tensors[NORM + name].numpy() for name in ("largest", "median"))),
                about["calibration"],
                *(about[name] for name in ("layers", "model", "fingerprint", "cost")),
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise InputError(
                f"the hidden states in {shown(str(path))} cannot be read ({reason}); delete the file, and "
                "the next run calibrates again"
            ) from None


def name_of(fingerprint: str, calibration: Mapping[str, Any]) -> str:
    """The name of the file for a model and a calibration set, as CalibrationSet.describe describes it."""
    return f"states-{files.digest([SCHEMA, fingerprint, dict(calibration)])}.safetensors"


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and all numbers."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


Derived = TypeVar("Derived")


@dataclass(eq=False)
class HiddenStates:
    """The same N points at every state of a decoder with L layers.

    "residual": state l is the input of layer l, state L the output of the last layer. "norm": state l is
    normalized between attention and feed-forward part of layer l, state L behind the final norm.

    Attributes:
        name: "residual" or "norm".
        values: (L + 1, N, d) in the model's precision, on the CPU.
        shared_ks: (metric, dimension) -> all k that any criterion is going to ask for, so that distances
            are computed once.
        reused_seconds: what was derived before would have taken so long again.
    """

    name: str
    values: torch.Tensor
    shared_ks: Mapping[tuple[str, int], Sequence[int]] = field(default_factory=dict)
    reused_seconds: float = 0.0
    _derived: dict[Any, tuple[Any, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """(L + 1, N, d) as float32."""
        return self.values.float().numpy()

    @property
    def layers(self) -> int:
        return len(self.values) - 1

    def derived(
        self,
        asked: Sequence[Hashable],
        others: Sequence[Hashable],
        make: Callable[[list[Any]], Sequence[Derived]],
    ) -> dict[Any, Derived]:
        """What is derived from these points under each of some keys, computed once for all that ask.

        Args:
            asked: keys that the caller needs.
            others: keys that others are going to need, made along with a missing one.
            make: takes keys and returns what stands for each.
        """
        self.reused_seconds += sum(self._derived[key][1] for key in asked if key in self._derived)
        if any(key not in self._derived for key in asked):
            missing = [key for key in dict.fromkeys([*asked, *others]) if key not in self._derived]
            start = time.perf_counter()
            made = make(missing)
            seconds = (time.perf_counter() - start) / len(missing)
            self._derived |= {key: (value, seconds) for key, value in zip(missing, made, strict=True)}
            self.reused_seconds += seconds * sum(key not in asked for key in missing)
        return {key: self._derived[key][0] for key in asked}


@dataclass(frozen=True)
class TokenSums:
    """Means over all tokens that are not padding.

    Attributes:
        means: "token_cosine" or "relative_magnitude" -> (L,).
        tokens: how many tokens these are means over.
    """

    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    tokens: int = 0

    def only(self, names: Collection[str]) -> TokenSums:
        """Those of these names."""
        return TokenSums({name: value for name, value in self.means.items() if name in names}, self.tokens)

    @property
    def token_cosine(self) -> NDArray[np.float64]:
        """(L,): the cosine of a layer's input and output."""
        return self._mean("token_cosine")

    @property
    def relative_magnitude(self) -> NDArray[np.float64]:
        """(L,): |output - input| / |output| of a layer."""
        return self._mean("relative_magnitude")

    def _mean(self, name: str) -> NDArray[np.float64]:
        if name not in self.means:
            raise InputError(f"{name} was not collected in this calibration")
        return self.means[name]


@dataclass(frozen=True)
class DecoderLayers:
    """How many decoder layers a model has, and which of them cannot be deleted."""

    count: int
    undeletable: frozenset[int] = frozenset()

    def droppable(self, protect_first: int, protect_last: int) -> list[int]:
        """The layers that are neither protected nor undeletable, ascending."""
        inner = range(protect_first, self.count - protect_last)
        return [layer for layer in inner if layer not in self.undeletable]
