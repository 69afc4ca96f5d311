"""Tiny models of every registered family, their processors, and a plain pass that calibration must match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from families import wrapped
from PIL import Image, ImageOps

from lmms_topoprune.calibration.samples import Sample

# What a prompt holds for an image, as the family's own template writes it.
MARKS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "<|vision_start|><|image_pad|><|vision_end|>"),
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "idefics2"), "<image>"),
    "internvl_hf": "<IMG_CONTEXT>\n",
    "gemma3": "<start_of_image>",
    "llama_vision": "<|image|>",
    "instructblip": "",
    "glm4v": "<|begin_of_image|><|image|><|end_of_image|>",
}
BUILDERS = {name: wrapped.BUILDERS[name] for name in MARKS}
FINAL_NORMS = ("language_model.norm", "text_model.norm", "language_model.model.norm")


@dataclass(frozen=True)
class Alone:
    """One sample's hidden states (L + 1, T, d) and where they hold image features, bool (T,)."""

    hidden: torch.Tensor
    image: torch.Tensor

    def vector(self, token: str) -> torch.Tensor:
        """(L + 1, d)"""
        if token == "last":
            return self.hidden[:, -1]
        places = {"mean": self.image | True, "mean_image": self.image, "mean_text": ~self.image}[token]
        return self.hidden[:, places].mean(1)


@dataclass(frozen=True)
class Tiny:
    """A tiny model of a family."""

    name: str
    model: Any
    processor: Any

    @classmethod
    def of(cls, name: str) -> Tiny:
        config, processor = BUILDERS[name]()
        torch.manual_seed(0)
        kind = config.architectures[0] if config.architectures else wrapped.class_of(config)
        model = getattr(hf, kind)(config).eval()
        with torch.no_grad():  # large enough that every token matters to the others
            for name_, parameter in model.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4.0)
                if not parameter.any() and not name_.endswith("bias"):
                    parameter.normal_()  # Gemma 3's projection of images, Mllama's gates
        return cls(name, model, processor)

    def alone(self, sample: Sample) -> Alone:
        """A plain pass of one sample, without padding."""
        if sample.image is None:
            return self.passed(f"user: {sample.instruction}assistant:")
        prompt = f"user: {MARKS[self.name]}{sample.instruction}assistant:"
        return self.passed(prompt, {"images": [sample.image]}, {"images": [ImageOps.invert(sample.image)]})

    def passed(
        self, prompt: str, media: dict[str, Any] | None = None, other: dict[str, Any] | None = None
    ) -> Alone:
        """A plain pass; image features are where the other pixels make a difference."""
        hidden = self._hidden(prompt, media or {})
        newline = next((p for n, p in self.model.named_parameters() if n.endswith("image_newline")), None)
        with torch.no_grad():
            if newline is not None and other:
                newline.add_(1.0)
            changed = self._hidden(prompt, other or {})
            if newline is not None and other:
                newline.sub_(1.0)
        return Alone(hidden, (hidden[0] != changed[0]).any(-1))

    def _hidden(self, prompt: str, media: dict[str, Any]) -> torch.Tensor:
        inputs = self.processor(text=[prompt], return_tensors="pt", **media)
        modules = dict(self.model.named_modules())
        # DeepStack adds to a layer's output after transformers has noted it.
        deep = [f"model.language_model.layers.{i}" for i in (1, 2)] if self.name == "qwen3_vl" else []
        final = [name for name in modules if name.endswith(FINAL_NORMS)]
        inputs_of: list[torch.Tensor] = []
        listen = [
            modules[n].register_forward_pre_hook(lambda _, a: inputs_of.append(a[0][0])) for n in deep + final
        ]
        with torch.no_grad():
            found = self.model(**inputs, output_hidden_states=True)
        for hook in listen:
            hook.remove()
        states = getattr(found, "hidden_states", None) or found.language_model_outputs.hidden_states
        plain = [state[0] for state in states[:-1]]
        plain[1 : 1 + len(deep)] = inputs_of[: len(deep)]
        return torch.stack([*plain, inputs_of[-1]])


def mixed_samples() -> list[Sample]:
    """Questions and images of different lengths and shapes."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for words, size in ((0, (56, 56)), (4, (112, 56)), (1, (56, 84)), (2, (112, 112)), (6, (56, 56))):
        pixels = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8).numpy()
        found.append(Sample("What is it?" + " Look closely." * words, Image.fromarray(pixels)))
    return found
