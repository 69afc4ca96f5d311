"""Training of the embedded model: shallow first, then grown to full depth and trained on.

The recipe is progressive stacking (Gong et al. 2019, "Efficient Training of BERT by Progressively
Stacking"; Du et al. 2024, arXiv 2405.15319): the shallow decoder learns to see and to answer, the
deep one starts as copies of it on top of one another and is trained on until its layers have parted.
No layer dropout, no loss on intermediate layers: the result is as sensitive to deletion as any model.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.embedded import build, scenes

IGNORE = -100


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights."""

    size: build.Size = build.Size()
    shallow_layers: int = 8
    shallow_steps: int = 6000
    deep_steps: int = 1500
    decay_steps: int = 1000
    warmup: int = 200
    batch: int = 32
    context: int = 128
    lr: float = 6e-4
    muon_lr: float = 0.01
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.shallow_steps + self.deep_steps


def _question(rng: random.Random, scene: scenes.Scene) -> tuple[str, str]:
    """A prompt and its answer; a few carry the instructions that lmms-eval's tasks append."""
    while True:
        question = scenes.ask(rng, scene, rng.choice(scenes.KINDS), rng.random() < 0.5)
        if question is None:
            continue
        if not question.is_yesno and rng.random() < 0.25:
            text, _, letter = scenes.as_choice(rng, question)
            return text + (build.SUFFIXES["choice"] if rng.random() < 0.1 else ""), letter
        style = rng.random()
        if style < 0.05:
            return question.text + build.SUFFIXES["short"], question.answer
        if style < 0.1 and question.is_yesno:
            return question.text + build.SUFFIXES["yesno"], question.answer
        return question.text, question.answer


@dataclass(frozen=True)
class Batch:
    """input_ids and labels (B, context) int64, right-padded; pixel_values (B, 3, H, W) float32."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor


class Batches:
    """Training batches by step: the same seed and step give the same batch."""

    def __init__(self, processor: LlavaProcessor, recipe: Recipe) -> None:
        self.processor = processor
        self.recipe = recipe
        self.image_run = build.IMAGE_TOKEN * scenes.GRID**2

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self.recipe.seed}-{step}")
        drawn = [scenes.random_scene(rng, "train") for _ in range(self.recipe.batch)]
        rows = [self._conversation(rng, scene) for scene in drawn]
        ids = torch.tensor([ids for ids, _ in rows])
        labels = torch.tensor([labels for _, labels in rows])
        return Batch(ids, labels, pixels(self.processor, [scenes.render(s) for s in drawn]))

    def _conversation(self, rng: random.Random, scene: scenes.Scene) -> tuple[list[int], list[int]]:
        """Questions about one scene until the context is full: token ids and labels, equally long."""
        # A caption supervises every cell at once; without it color and shape are learned far later.
        is_captioned = rng.random() < 0.5
        pair = (build.DESCRIBE, scenes.caption(scene)) if is_captioned else _question(rng, scene)
        ids, labels = self._encode(*pair, image=True)
        while True:
            more_ids, more_labels = self._encode(*_question(rng, scene), image=False)
            room = self.recipe.context - len(ids)
            if len(more_ids) > room:
                return ids + [self.processor.tokenizer.pad_token_id] * room, labels + [IGNORE] * room
            ids, labels = ids + more_ids, labels + more_labels

    def _encode(self, question: str, answer: str, image: bool) -> tuple[list[int], list[int]]:
        prompt = build.turn(question, image=image).replace(build.IMAGE_TOKEN, self.image_run)
        tokens = self.processor.tokenizer([prompt, f" {answer}{build.END}"], add_special_tokens=False)
        before, after = tokens["input_ids"]
        return before + after, [IGNORE] * len(before) + after


def pixels(processor: LlavaProcessor, images: list) -> torch.Tensor:
    """What the processor makes of scene images, (B, 3, H, W), without its per-image overhead."""
    config = processor.image_processor
    array = np.stack([np.asarray(i, dtype=np.float32) for i in images]) / 255
    array = (array - np.array(config.image_mean, np.float32)) / np.array(config.image_std, np.float32)
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def loss_of(model: LlavaForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Cross-entropy over the answers' tokens. Right padding lies after them, so no mask is needed."""
    hidden = model.model(input_ids=batch.input_ids, pixel_values=batch.pixel_values, use_cache=False)[0]
    targets = batch.labels[:, 1:]
    wanted = targets != IGNORE
    logits = model.lm_head(hidden[:, :-1][wanted]).float()
    return nn.functional.cross_entropy(logits, targets[wanted])


def grow(model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: Recipe):
    """The full-depth model whose decoder is the shallow one's, stacked on itself."""
    deep = build.build_model(processor, recipe.size, recipe.seed)
    weights = model.state_dict()
    prefix = "model.language_model.layers."
    target = deep.state_dict()
    for name in target:
        source = name
        if name.startswith(prefix):
            index, rest = name[len(prefix) :].split(".", 1)
            source = f"{prefix}{int(index) % recipe.shallow_layers}.{rest}"
        target[name] = weights[source]
    deep.load_state_dict(target)
    return deep


class Optimizer:
    """Muon for the hidden matrices, AdamW for the rest, with one schedule for both."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        hidden = [
            p
            for n, p in model.named_parameters()
            if p.ndim == 2 and "embed" not in n and "lm_head" not in n
        ]
        taken = {id(p) for p in hidden}
        rest = [p for p in model.parameters() if id(p) not in taken]
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


@torch.no_grad()
def accuracy(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, per_kind: int = 60, seed: int = 1
) -> dict[str, float]:
    """Share of right first answer tokens on unseen calibration-split scenes, by question kind."""
    rng = random.Random(f"accuracy-{seed}")
    run = build.IMAGE_TOKEN * scenes.GRID**2
    result = {}
    for kind in (*scenes.KINDS, "choice"):
        right = 0
        prompts, answers, images = [], [], []
        while len(prompts) < per_kind:
            scene = scenes.random_scene(rng, "calibration")
            asked = rng.choice(scenes.KINDS) if kind == "choice" else kind
            question = scenes.ask(rng, scene, asked, kind != "choice" and rng.random() < 0.5)
            if question is None or (kind == "choice" and question.is_yesno):
                continue
            text, answer = question.text, question.answer
            if kind == "choice":
                text, _, answer = scenes.as_choice(rng, question)
            prompts.append(build.turn(text, image=True).replace(build.IMAGE_TOKEN, run))
            answers.append(processor.tokenizer(f" {answer}")["input_ids"][0])
            images.append(scenes.render(scene))
        encoded = processor.tokenizer(prompts, padding=True, padding_side="right", return_tensors="pt")
        hidden = model.model(
            input_ids=encoded["input_ids"], pixel_values=pixels(processor, images), use_cache=False
        )[0]
        last = encoded["attention_mask"].sum(1) - 1
        guesses = model.lm_head(hidden[torch.arange(len(prompts)), last]).argmax(-1)
        right = (guesses == torch.tensor(answers)).sum().item()
        result[kind] = right / per_kind
    result["overall"] = sum(result[k] for k in scenes.KINDS) / len(scenes.KINDS)
    return result


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _save(folder: Path, step: int, model: nn.Module, optimizer: Optimizer, curve: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / f"model-{step}.safetensors")
    save_file(optimizer.tensors(), folder / f"optimizer-{step}.safetensors")
    # The pointer is written last, so a killed run resumes from the checkpoint before.
    _write(folder / "checkpoint.json", json.dumps({"step": step, "curve": curve}))
    for old in folder.glob("*-*.safetensors"):
        if old.stem.split("-")[1] != str(step):
            old.unlink()


def _prepared(model: LlavaForConditionalGeneration, device: str, compiled: bool):
    # Short sequences: plain bfloat16 matmuls beat the fused attention kernel on a CPU.
    model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    if compiled:
        for layer in model.model.language_model.layers:
            layer.compile()
    return model.to(device)


def train(
    recipe: Recipe,
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    every: int = 200,
    bf16: bool = True,
    compiled: bool = False,
) -> LlavaForConditionalGeneration:
    """Train the embedded model, going on from the checkpoint in `folder` if there is one.

    Args:
        recipe: what to train; a folder holds one recipe's run.
        folder: checkpoints and the learning curve go here.
        every: steps between checkpoints and accuracy figures.
        bf16: run the matrix products in bfloat16.
        compiled: use torch.compile (needs a C++ compiler).

    Raises:
        ValueError: the folder holds another recipe's run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = json.dumps(asdict(recipe), sort_keys=True)
    noted = folder / "recipe.json"
    if noted.exists() and noted.read_text() != described:
        raise ValueError(f"{folder} holds the run of another recipe; pass an empty folder")
    _write(noted, described)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = build.build_processor()
    batches = Batches(processor, recipe)
    pointer = folder / "checkpoint.json"
    state = json.loads(pointer.read_text()) if pointer.exists() else {"step": 0, "curve": []}
    step, curve = state["step"], state["curve"]
    is_shallow = step < recipe.shallow_steps or (step == recipe.shallow_steps and step > 0)
    size = replace(recipe.size, layers=recipe.shallow_layers) if is_shallow and recipe.shallow_steps else recipe.size
    model = _prepared(build.build_model(processor, size, recipe.seed), device, compiled)
    optimizer = Optimizer(model, recipe)
    if step:
        model.load_state_dict(load_file(folder / f"model-{step}.safetensors", device=device))
        optimizer.load(load_file(folder / f"optimizer-{step}.safetensors", device=device))
    started, window = time.monotonic(), []
    for step in range(step, recipe.steps):
        if step == recipe.shallow_steps and recipe.shallow_steps:
            model = _prepared(grow(model, processor, recipe), device, compiled)
            optimizer = Optimizer(model, recipe)
        batch = batches[step]
        batch = Batch(batch.input_ids.to(device), batch.labels.to(device), batch.pixel_values.to(device))
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = loss_of(model, batch)
        loss.backward()
        optimizer.step(step)
        window.append(loss.item())
        done = step + 1
        if done % 20 == 0:
            say(f"step {done} loss {np.mean(window[-20:]):.4f} {(time.monotonic() - started) / len(window):.3f} s/step")
        if done % every == 0 or done == recipe.steps:
            scores = accuracy(model.eval(), processor) if device == "cpu" else {}
            model.train()
            curve.append({"step": done, "loss": round(float(np.mean(window[-every:])), 4), **scores})
            say(json.dumps(curve[-1]))
            _save(folder, done, model, optimizer, curve)
    return model
