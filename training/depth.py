"""What each decoder layer is worth: the cost of leaving it out alone; and how alike layers' weights are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlavaProcessor, PreTrainedModel

from lmms_topoprune.embedded import scenes
from training.batches import pixels
from training.evaluate import Item, cells, items

BATCH = 25


@dataclass
class Judged:
    """A batch and the places where the model's next token is judged.

    Attributes:
        inputs: keyword arguments of the model.
        places: (B, T) bool.
        wanted: (places,) the right next tokens, in the order of `places`.
    """

    inputs: dict[str, torch.Tensor]
    places: torch.Tensor
    wanted: torch.Tensor


def answers(processor: LlavaProcessor, per_cell: int, split: str = "test", seed: int = 3) -> Iterator[Judged]:
    """Questions of every form and kind; judged is the first token of the answer."""
    asked = [item for cell in cells() for item in items(cell, per_cell, split, seed)]
    for start in range(0, len(asked), BATCH):
        yield _questions(processor, asked[start : start + BATCH])


def _questions(processor: LlavaProcessor, asked: list[Item]) -> Judged:
    tokenizer = processor.tokenizer
    image_run = processor.image_token * scenes.GRID**2
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": item.text}]}],
            add_generation_prompt=True,
        ).replace(processor.image_token, image_run)
        for item in asked
    ]
    # Where the template does not end with a space or a line, the answer begins with one.
    gap = "" if prompts[0][-1].isspace() else " "
    batch = tokenizer(
        prompts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
    )
    ids = [tokenizer(gap + item.answer, add_special_tokens=False)["input_ids"][0] for item in asked]
    last = batch["attention_mask"].sum(1) - 1
    places = torch.arange(batch["input_ids"].shape[1]) == last[:, None]
    images = pixels(processor, [item.image for item in asked])
    # Right padding lies after the places that are judged: no mask is needed.
    return Judged({"input_ids": batch["input_ids"], "pixel_values": images}, places, torch.tensor(ids))


def text(tokenizer: Any, paragraphs: list[str], windows: int, length: int) -> Iterator[Judged]:
    """Running text in `windows` windows of `length` tokens; every token but the first is judged."""
    ids: list[int] = []
    for paragraph in paragraphs:
        ids += tokenizer(paragraph + "\n\n", add_special_tokens=False)["input_ids"]
        if len(ids) >= windows * length:
            break
    for row in torch.tensor(ids[: windows * length]).view(-1, length).split(4):
        places = torch.ones_like(row, dtype=torch.bool)
        places[:, -1] = False
        yield Judged({"input_ids": row}, places, row[:, 1:].flatten())


class Prefix:
    """The states ahead of every layer in one forward pass; a layer left out costs the later ones only.

    Attributes:
        states: L tensors (B, T, d), the inputs of the layers.
        arguments: what each layer takes besides.
    """

    def __init__(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> None:
        self.decoder = model.get_decoder()
        self.states: list[torch.Tensor] = []
        self.arguments: list[dict[str, Any]] = []

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.states.append(args[0])
            self.arguments.append(kwargs)

        hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in self.decoder.layers]
        try:
            self.final = model.base_model(**inputs, use_cache=False)[0]
        finally:
            for hook in hooks:
                hook.remove()

    def without(self, index: int | None) -> torch.Tensor:
        """The decoder's normalized output (B, T, d) without one layer; with all of them if None."""
        if index is None:
            return self.final
        state = self.states[index]
        for layer, arguments in list(zip(self.decoder.layers, self.arguments, strict=True))[index + 1 :]:
            state = layer(state, **arguments)
        normalized: torch.Tensor = self.decoder.norm(state)
        return normalized


@torch.no_grad()
def deletion_costs(model: PreTrainedModel, batches: Iterator[Judged]) -> dict[str, Any]:
    """Loss (nats a token) and accuracy (share of tokens), dense and without each layer alone.

    Returns:
        {"tokens": count, "dense": {"loss", "accuracy"}, "without": [the same of every layer]}.
    """
    layers = len(model.get_decoder().layers)
    sums = torch.zeros(layers + 1, 2, dtype=torch.float64)
    count = 0
    for judged in batches:
        prefix = Prefix(model, judged.inputs)
        for row, index in enumerate([None, *range(layers)]):
            logits = model.lm_head(prefix.without(index)[judged.places]).float()
            sums[row, 0] += nn.functional.cross_entropy(logits, judged.wanted, reduction="sum")
            sums[row, 1] += (logits.argmax(-1) == judged.wanted).sum()
        count += len(judged.wanted)
    rows = [{"loss": loss / count, "accuracy": right / count} for loss, right in sums.tolist()]
    return {"tokens": count, "dense": rows[0], "without": rows[1:]}


def part_costs(model: PreTrainedModel, batches: Sequence[Judged]) -> list[dict[str, float]]:
    """Share of right tokens lost where a part of one layer writes nothing, for every layer.

    Returns:
        For each layer: "attention", "first heads" and "last heads" (a half each; their number is even), and
        "mlp".
    """
    dense, found = _right(model, batches), []
    for layer in model.get_decoder().layers:
        attention, mlp = layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight
        half = attention.shape[1] // 2
        parts = {
            "attention": attention,
            "first heads": attention[:, :half],
            "last heads": attention[:, half:],
            "mlp": mlp,
        }
        costs = {}
        for name, written in parts.items():
            before = written.detach().clone()
            written.data.zero_()
            costs[name] = dense - _right(model, batches)
            written.data.copy_(before)
        found.append(costs)
    return found


@torch.no_grad()
def _right(model: PreTrainedModel, batches: Sequence[Judged]) -> float:
    """Share of right tokens."""
    right = count = 0
    for judged in batches:
        states = model.base_model(**judged.inputs, use_cache=False)[0][judged.places]
        right += int((model.lm_head(states).argmax(-1) == judged.wanted).sum())
        count += len(judged.wanted)
    return right / count


def similarity(model: PreTrainedModel) -> torch.Tensor:
    """Cosine similarity (L, L) between layers, of all their matrices as one vector."""
    flat = [
        torch.cat([p.detach().float().flatten() for p in layer.parameters() if p.ndim == 2])
        for layer in model.get_decoder().layers
    ]
    unit = [vector / vector.norm() for vector in flat]
    return torch.stack([torch.stack([a @ b for b in unit]) for a in unit])
