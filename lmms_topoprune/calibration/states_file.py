"""What a calibration pass found, as a file: later criteria are scored without another pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lmms_topoprune._util import files
from lmms_topoprune.calibration.norms import TokenNorms
from lmms_topoprune.calibration.states import HiddenStates, TokenSums
from lmms_topoprune.errors import InputError, shown

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
            files.check_regular(path)
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
                dict(about["calibration"]),
                about["layers"],
                about["model"],
                about["fingerprint"],
                {name: float(value) for name, value in dict(about["cost"]).items()},
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
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
