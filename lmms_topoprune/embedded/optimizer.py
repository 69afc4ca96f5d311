"""The optimizer of the embedded model's training, with its schedule and its state as plain tensors."""

from __future__ import annotations

import torch
from torch import nn

from lmms_topoprune.embedded.recipe import Recipe


class Optimizer:
    """Muon for the hidden matrices, AdamW for the rest, with one schedule for both."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        hidden = [
            p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
        ]
        taken = {id(p) for p in hidden}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
        self.parts = [
            torch.optim.Muon(
                hidden,
                lr=recipe.muon_lr,
                weight_decay=recipe.weight_decay,
                adjust_lr_fn="original",
            ),
            torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.parameters = [*hidden, *rest]

    def step(self, step: int) -> None:
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, peak in zip(self.parts, (self.recipe.muon_lr, self.recipe.lr), strict=True):
            for group in part.param_groups:
                group["lr"] = peak * schedule(step, self.recipe)
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The state as plain tensors, for a safetensors file."""
        return {
            f"{n}.{index}.{key}": value.contiguous()
            for n, part in enumerate(self.parts)
            for index, state in part.state_dict()["state"].items()
            for key, value in state.items()
        }

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for n, part in enumerate(self.parts):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in tensors.items():
                owner, index, key = name.split(".")
                if int(owner) == n:
                    state.setdefault(int(index), {})[key] = value
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def schedule(step: int, recipe: Recipe) -> float:
    """Warm-up, constant, linear decay; a second warm-up after the growth."""
    since_start = step if step < recipe.shallow_steps else step - recipe.shallow_steps
    warm = min(1.0, (since_start + 1) / recipe.warmup)
    left = min(1.0, (recipe.steps - step) / recipe.decay_steps)
    return min(warm, left)
