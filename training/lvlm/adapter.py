"""What training changes of the pretrained LVLM: low-rank updates of the decoder, and the projector.

Apart from the weights they belong to they take a few megabytes: whoever has SmolLM2 makes the trained model
in seconds.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlavaForConditionalGeneration

from lmms_topoprune.errors import InputError
from lmms_topoprune.heal.overlay import LoraOverlay

FILE = "adapter.safetensors"


class Adapter:
    """Low-rank updates of a model's decoder layers (Hu et al. 2021, arXiv 2106.09685), and its projector.

    Whatever else the model has is frozen.

    Args:
        model: changed in place; its answers stay the same until the updates are trained.
        rank: of the updates.
        seed: draws their start.
    """

    def __init__(self, model: LlavaForConditionalGeneration, rank: int, seed: int) -> None:
        model.requires_grad_(False)
        self.projector: nn.Module = model.model.multi_modal_projector
        self.projector.requires_grad_(True)
        self.updates = LoraOverlay(model.model.language_model.layers, rank, seed)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Updates and projector by name."""
        projector = {f"projector.{name}": p for name, p in self.projector.named_parameters()}
        return {**{f"layers.{name}": p for name, p in self.updates.parameters().items()}, **projector}

    def save(self, folder: Path) -> None:
        """Write the file of a release, in bfloat16."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: p.detach().to(torch.bfloat16).contiguous() for name, p in self.parameters().items()},
            folder / FILE,
        )

    def load(self, folder: Path) -> None:
        """Take the values of a release.

        Raises:
            InputError: it is another model's or of another rank.
        """
        stored, own = load_file(folder / FILE), self.parameters()
        if {n: v.shape for n, v in stored.items()} != {n: p.shape for n, p in own.items()}:
            raise InputError(f"{folder / FILE} holds the updates of another model")
        with torch.no_grad():
            for name, value in stored.items():
                own[name].copy_(value)

    def merge(self) -> None:
        """Add the updates to the weights; what is left is a plain model."""
        for module, weights in self.updates.finish().items():
            for name, weight in weights.items():
                setattr(module, name, weight)
