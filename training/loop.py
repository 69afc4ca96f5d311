"""A training run in a folder: it can be killed at any moment and goes on to the same weights.

The rate stays constant until the decay (Hagele et al. 2024, arXiv 2405.18392), so a run can be ended at
any step and prolonged later: a longer one goes on from the last checkpoint before the decay.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lmms_topoprune.errors import InputError
from training.optimizer import Optimizer, Schedule

Say = Callable[[str], None]


class Run:
    """Where a run stands, and its checkpoints, `folder`/step-NNNNNN.

    Args:
        folder: holds one recipe's run.
        recipe: what decides the weights, its length apart; plain values.
        schedule: how long the run is.
        model, optimizer: trained in place.

    Raises:
        InputError: the folder holds another recipe's run.
    """

    def __init__(
        self,
        folder: Path,
        recipe: dict[str, Any],
        schedule: Schedule,
        model: nn.Module,
        optimizer: Optimizer,
    ) -> None:
        self.folder, self.schedule, self.model, self.optimizer = folder, schedule, model, optimizer
        described = json.dumps(recipe, sort_keys=True, indent=1)
        noted = folder / "recipe.json"
        if noted.exists() and noted.read_text() != described:
            raise InputError(f"{folder} holds the run of another recipe; pass an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        noted.write_text(described)
        self.step, self.curve = 0, []
        if found := newest(folder, schedule):
            state = _state(found)
            self.step, self.curve = state["step"], state["curve"]
            load_parameters(model, found)
            optimizer.load(load_file(found / "optimizer.safetensors"))

    def train(
        self,
        loss_at: Callable[[int], torch.Tensor],
        score: Callable[[], dict[str, float]],
        *,
        every: int,
        say: Say = print,
    ) -> None:
        """Step until the schedule's end, with a checkpoint and scores `every` so many steps.

        Args:
            loss_at: the loss of a step, which depends on the step alone.
            score: figures for the learning curve.
            every: steps between checkpoints.
            say: receives a line of progress every 20 steps and every checkpoint's figures.
        """
        started, losses = time.monotonic(), []
        trunk = self.schedule.steps - self.schedule.decay
        while self.step < self.schedule.steps:
            loss = loss_at(self.step)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step(self.schedule(self.step))
            self.step += 1
            losses.append(loss.item())
            if self.step % 20 == 0:
                pace = (time.monotonic() - started) / len(losses)
                left = pace * (self.schedule.steps - self.step) / 60
                mean = np.mean(losses[-20:])
                say(f"step {self.step} loss {mean:.4f}, {pace:.2f} s a step, {left:.0f} min left")
            if self.step % every == 0 or self.step in (trunk, self.schedule.steps):
                self.curve.append({"step": self.step, "loss": round(float(np.mean(losses[-every:])), 4)})
                with torch.compiler.set_stance("force_eager"):
                    self.curve[-1] |= {name: round(value, 4) for name, value in score().items()}
                self.save()
                say(json.dumps(self.curve[-1]))

    def save(self) -> None:
        """Write a checkpoint; of those before, the last one ahead of the decay is kept."""
        target = self.folder / f"step-{self.step:06d}"
        partial = self.folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: p.detach().contiguous() for name, p in self.model.named_parameters()}
        save_file(weights, partial / "model.safetensors")
        save_file(self.optimizer.tensors(), partial / "optimizer.safetensors")
        end = None if self.step <= self.schedule.steps - self.schedule.decay else self._end
        state = {"step": self.step, "end": end, "curve": self.curve}
        (partial / "state.json").write_text(json.dumps(state))
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for other in self.folder.glob("step-*"):
            if other != target and _state(other)["end"] == end:
                shutil.rmtree(other)

    @property
    def _end(self) -> list[int]:
        return [self.schedule.steps, self.schedule.decay]


def newest(folder: Path, schedule: Schedule) -> Path | None:
    """The last checkpoint on the way to the schedule's end, if there is one."""
    found = []
    for path in folder.glob("step-*"):
        state = _state(path)
        is_trunk = state["end"] is None and state["step"] <= schedule.steps - schedule.decay
        if is_trunk or state["end"] == [schedule.steps, schedule.decay]:
            found.append((state["step"], path))
    return max(found)[1] if found else None


def finished(folder: Path) -> Path:
    """The checkpoint of the longest run that was trained to its end.

    Raises:
        InputError: there is none.
    """
    ends = [
        path
        for path in folder.glob("step-*")
        if (end := _state(path)["end"]) and _state(path)["step"] == end[0]
    ]
    if not ends:
        raise InputError(f"{folder} holds no finished run; train it to the end first")
    return max(ends)


def load_parameters(model: nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's parameters into the model; a shared one is stored once.

    Raises:
        InputError: the parameters are those of another model.
    """
    stored = load_file(checkpoint / "model.safetensors")
    own = dict(model.named_parameters())
    if stored.keys() != own.keys():
        raise InputError(
            f"{checkpoint} holds another model's parameters: {sorted(stored.keys() ^ own.keys())[:3]}"
        )
    with torch.no_grad():
        for name, value in stored.items():
            own[name].copy_(value)


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
    return state
