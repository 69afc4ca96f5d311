"""Where a healing stands, as files: it goes on after kill -9 and ends in the same weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from lmms_topoprune._util import files
from lmms_topoprune.errors import InputError, shown

Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """Numbers that say where a training stands.

    Attributes:
        step: optimizer steps taken.
        tokens: answer tokens trained on so far.
        trained: mean training losses, one a look.
        held_out: held-out losses, the first before any step.
        best: place of the lowest of them.
    """

    step: int = 0
    tokens: int = 0
    trained: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one healing; None keeps nothing.

    Attributes:
        folder: holds state.json, which names the files that belong to it and is written last.
        key: what decides the healed weights; a checkpoint of another key is not used.
    """

    folder: Path | None
    key: str

    def load(self) -> tuple[Progress, Tensors, Tensors, Tensors] | None:
        """Progress, weights, best weights, optimizer; None without a sound checkpoint of this healing."""
        if self.folder is None:
            return None
        try:
            state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            if state["key"] != self.key:
                return None
            step = int(state["progress"]["step"])
            parts = [
                load_tensors((self.folder / f"{name}-{step}.safetensors").read_bytes())
                for name in ("weights", "best", "optimizer")
            ]
            return Progress(**state["progress"]), parts[0], parts[1], parts[2]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def save(self, progress: Progress, weights: Tensors, best: Tensors, optimizer: Tensors) -> None:
        """Write a checkpoint, then forget the one before.

        Raises:
            InputError: it cannot be written.
        """
        if self.folder is None:
            return
        parts = {"weights": weights, "best": best, "optimizer": optimizer}
        try:
            for name, tensors in parts.items():
                plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                path = self.folder / f"{name}-{progress.step}.safetensors"
                files.write_bytes(path, save_tensors(plain))
            files.write_json(self.folder / "state.json", {"key": self.key, "progress": vars(progress)})
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"the checkpoint in {shown(str(self.folder))} cannot be written: {reason}"
            ) from None
        for old in self.folder.glob("*-*.safetensors"):
            if not old.stem.endswith(f"-{progress.step}"):
                old.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> Tensors:
    """AdamW's state as plain tensors, named after the parameters."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{names[number]}|{key}": torch.as_tensor(value)
        for number, entries in state.items()
        for key, value in entries.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, names: list[str]) -> None:
    """The inverse of optimizer_tensors."""
    places = {name: number for number, name in enumerate(names)}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        owner, _, key = name.rpartition("|")
        state.setdefault(places[owner], {})[key] = value
    described = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": described["param_groups"]})
