"""Training on what the dense model says, by AdamW, until the held-out share stops gaining.

Killed at any moment, it goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from lmms_topoprune._util import files
from lmms_topoprune.calibration.collect import forward
from lmms_topoprune.calibration.decoder import last_logits
from lmms_topoprune.calibration.loss import Text
from lmms_topoprune.calibration.ranks import Ranks
from lmms_topoprune.calibration.tokens import Tokens
from lmms_topoprune.errors import InputError, SurgeryError, shown
from lmms_topoprune.heal.distillation import Loss, Outcome, Seams, dense_again, loss_of, predicted
from lmms_topoprune.heal.overlay import Overlay
from lmms_topoprune.heal_options import HealingOptions
from lmms_topoprune.surgery import Deletion

Tensors = dict[str, torch.Tensor]


@dataclass
class Progress:
    """Numbers that say where a training stands.

    Attributes:
        step: optimizer steps taken.
        tokens: answer tokens trained on so far.
        held_out: held-out losses, the first before any step.
        best: place of the lowest of them.
    """

    step: int = 0
    tokens: int = 0
    held_out: list[float] = field(default_factory=list)
    best: int = 0

    def kept(self, options: HealingOptions) -> int:
        """The step whose weights were best: looks come every so many steps, and at the end."""
        return min(self.best * options.check_every, self.step)


OWN_FILES = re.compile(r"\.?(state\.json|(weights|best|optimizer)-\d+\.safetensors)(\..*)?")
"""Names of a checkpoint's files, finished or half-written."""


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
            known = {field.name: state["progress"][field.name] for field in fields(Progress)}
            return Progress(**known), parts[0], parts[1], parts[2]
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
            if OWN_FILES.fullmatch(old.name) and not old.stem.endswith(f"-{progress.step}"):
                old.unlink(missing_ok=True)

    def check(self) -> None:
        """Refuse a place that is somebody else's; hidden files, such as a file manager's, may lie there.

        Raises:
            InputError: it holds other files, or is a file.
        """
        if self.folder is None or not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise InputError(
                f"{shown(str(self.folder))} is a file, but a healing keeps its checkpoints there; "
                "remove it or pass another output"
            )
        names = (file.name for file in self.folder.iterdir() if not file.name.startswith("."))
        if foreign := sorted(name for name in names if not OWN_FILES.fullmatch(name)):
            raise InputError(
                f"{shown(str(self.folder))} holds {shown(foreign[0])}, but a healing keeps its checkpoints "
                "there; remove it or pass another output"
            )

    def discard(self) -> None:
        """Forget it: the healed model is saved."""
        if self.folder is None or not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if OWN_FILES.fullmatch(file.name):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's file has come meanwhile
            self.folder.rmdir()


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


WARM_UP = 0.1
"""Share of the steps over which the learning rate rises."""
FLOOR = 0.1
"""Share of the peak learning rate at the last step."""
Tell = Callable[[int, float, int], None]
"""Called after every step with (step, loss, answer tokens so far)."""


@dataclass
class Training:
    """One healing at work.

    Attributes:
        deletion: of the model that is healed; undone, it gives the teacher.
        overlay: what is trained.
        train, held_out: this process's batches; their answers are the dense model's own.
        options: how.
        seed: draws the order of the batches.
        checkpoint: where it is kept.
        tell: told after every step.
        ranks: processes that share every step: each takes a batch of its own.
    """

    deletion: Deletion
    overlay: Overlay
    train: Sequence[Text]
    held_out: Sequence[Text]
    options: HealingOptions
    seed: int
    checkpoint: Checkpoint
    tell: Tell
    ranks: Ranks

    def run(self) -> Progress:
        """Train, and leave the best weights in the overlay.

        Raises:
            SurgeryError: the loss is not finite.
            InputError: a checkpoint cannot be written.
        """
        self.seams = Seams.of(self.deletion)
        self.parameters = self.overlay.parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=self.options.peak, betas=(0.9, 0.95), weight_decay=0.0
        )
        progress, best = self._resumed()
        while progress.step < self.options.steps and not self._is_over(progress):
            loss = self._step(progress)
            self.tell(progress.step, loss, progress.tokens)
            self.ranks.check()
            if progress.step % self.options.check_every == 0 or progress.step == self.options.steps:
                best = self._look(progress, best)
        self._load(best)
        return progress

    def _resumed(self) -> tuple[Progress, Tensors]:
        if found := self.ranks.first(self.checkpoint.load):
            progress, weights, best, optimizer = found
            self._load(weights)
            load_optimizer(self.optimizer, optimizer, list(self.parameters))
            return progress, best
        return Progress(held_out=[self._held_out_loss()]), self._copied()

    def _is_over(self, progress: Progress) -> bool:
        since = len(progress.held_out) - 1 - progress.best
        return 0 < self.options.patience <= since

    def _step(self, progress: Progress) -> float:
        """One step of AdamW; returns the mean loss over all processes."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.peak * schedule(progress.step, self.options.steps)
        loss = self._loss(self._batch(progress.step))
        mean = loss.mean(self.options.seam_weight)
        mean.backward()
        value, tokens = self._summed(float(mean.detach()), loss.answer_tokens)
        value /= self.ranks.world
        if not math.isfinite(value):
            raise SurgeryError(
                f"the loss of healing is not finite at step {progress.step}; lower learning_rate "
                f"({self.options.peak:g})"
            )
        self._share_gradients()
        nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += round(tokens)
        return value

    def _batch(self, step: int) -> Text:
        """This process's batch of a step; every epoch has an order of its own."""
        epoch, index = divmod(step, len(self.train))
        order = list(range(len(self.train)))
        random.Random(f"{self.seed} {epoch}").shuffle(order)
        return self.train[order[index]]

    def _loss(self, text: Text) -> Loss:
        with dense_again(self.deletion, self.overlay):
            teacher = self._outcome(text)
        return loss_of(self._outcome(text), teacher)

    def _outcome(self, text: Text) -> Outcome:
        model = self.deletion.model
        with mixed_precision(model), self.seams.listening() as states, last_logits(model, text.window):
            logits = forward(model, text.inputs).logits
        if not self.options.seam_weight:
            return Outcome(predicted(logits, text.labels), {})
        tokens = Tokens.of(text.inputs, set())
        seams = {number: state[tokens.fitted(state).mask] for number, state in states.items()}
        return Outcome(predicted(logits, text.labels), seams)

    def _look(self, progress: Progress, best: Tensors) -> Tensors:
        """Measure the held-out share and keep a checkpoint; returns the best weights so far."""
        progress.held_out.append(self._held_out_loss())
        if progress.held_out[-1] < progress.held_out[progress.best]:
            progress.best, best = len(progress.held_out) - 1, self._copied()
        if self.ranks.rank == 0:
            state = optimizer_tensors(self.optimizer, list(self.parameters))
            self.checkpoint.save(progress, dict(self.parameters), best, state)
        return best

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Mean loss of an answer's token over the held-out batches of all processes."""
        total, count = 0.0, 0
        for text in self.held_out:
            loss = self._loss(text)
            total += float(loss.mean(self.options.seam_weight)) * loss.answer_tokens
            count += loss.answer_tokens
        value, tokens = self._summed(total, count)
        return value / max(tokens, 1.0)

    def _share_gradients(self) -> None:
        """The mean over processes, without a wrapper around a model that changes between its two roles."""
        if self.ranks.world == 1:
            return
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= self.ranks.world

    def _summed(self, *values: float) -> list[float]:
        """Sums over processes."""
        if self.ranks.world == 1:
            return list(values)
        device = next(iter(self.parameters.values())).device
        total = torch.tensor(values, dtype=torch.float32, device=device)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def _copied(self) -> Tensors:
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def _load(self, weights: Tensors) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear rise, then half a cosine down to FLOOR."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


def mixed_precision(model: nn.Module) -> Any:
    """Matrices are multiplied in bfloat16 inside where that is faster, or the weights are half already."""
    weight = next(model.parameters())
    return torch.autocast(weight.device.type, torch.bfloat16, enabled=multiplies_in_bfloat16(weight))


def multiplies_in_bfloat16(weight: torch.Tensor) -> bool:
    """Whether training beside such a weight is to be in bfloat16."""
    if weight.device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if weight.device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return fast or weight.dtype != torch.float32
    return False
