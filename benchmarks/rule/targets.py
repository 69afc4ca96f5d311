"""Models with their calibration samples and documents, evaluated fast with any set of layers missing.

Answers are judged by teacher forcing: greedy decoding writes exactly the expected answer if and only if
every one of its tokens is the model's first choice after those before it. The states of the dense model are
kept, so that an evaluation starts at the first layer that is missing: tokens x (L + 1) x d numbers.
"""

from __future__ import annotations

import json
import random
import re
import sys
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.plan import format_layers
from lmms_topoprune.surgery import decoder_layers

TASKS = Path(__file__).parents[2] / "tasks"
TASK_NAMES = ("yesno", "vqa", "choice")  # as many documents of each
BATCH = 16
CHUNK = 128  # logits that fit into a processor's cache
Units = dict[str, np.ndarray]


@dataclass
class Prefix:
    """One batch: the dense states before every layer, what each layer takes besides, where tokens are judged.

    Attributes:
        states: (L + 1, B, T, d).
        arguments: keyword arguments of a decoder layer.
        places: (B, T) bool, positions whose next token is judged.
        targets: (B, T), that next token.
    """

    states: torch.Tensor
    arguments: dict[str, Any]
    places: torch.Tensor
    targets: torch.Tensor


@dataclass
class Target(ABC):
    """A model and what it is judged by.

    Attributes:
        name: of the target.
        model, processor: the dense model.
    """

    name: str
    model: Any
    processor: Any
    prefixes: list[Prefix] = field(default_factory=list)

    @abstractmethod
    def samples(self, seed: int, count: int = 512) -> list[Sample]:
        """The calibration set of a seed."""

    @abstractmethod
    def units(self, found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Units:
        """Measure -> a number a document, from each batch's (row, log-probability, is first choice)."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, list[Any]]:
        """What the tables need to turn units into measures."""

    @property
    def layers(self) -> int:
        return len(decoder_layers(self.model))

    @torch.no_grad()
    def remember(self, inputs: Mapping[str, torch.Tensor], places: torch.Tensor) -> None:
        """Run the dense model once over a right-padded batch."""
        states: list[torch.Tensor] = []
        arguments: dict[str, Any] = {}

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states.append(args[0])
            arguments.update({k: v for k, v in kwargs.items() if not k.startswith("past_key")})

        layers = decoder_layers(self.model)
        hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
        last: list[torch.Tensor] = []
        hooks.append(self._norm.register_forward_pre_hook(lambda _, args: last.append(args[0])))
        try:
            self.model.model(**inputs, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        targets = inputs["input_ids"].roll(-1, 1)
        self.prefixes.append(Prefix(torch.stack([*states, *last]), arguments, places, targets))

    @property
    def _norm(self) -> Any:
        return self.model.get_decoder().norm

    @torch.no_grad()
    def evaluate(self, dropped: Sequence[int]) -> Units:
        """Every document's figures with these layers missing."""
        layers = decoder_layers(self.model)
        start = min(dropped, default=self.layers)
        found = []
        for prefix in self.prefixes:
            hidden = prefix.states[start]
            for index in range(start, self.layers):
                if index not in dropped:
                    hidden = layers[index](hidden, **prefix.arguments)
                    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            rows, _ = torch.nonzero(prefix.places, as_tuple=True)
            judged = self._norm(hidden[prefix.places])
            parts = zip(judged.split(CHUNK), prefix.targets[prefix.places].split(CHUNK), strict=True)
            likely, first = zip(*(self._judge(*part) for part in parts), strict=True)
            found.append((rows.numpy(), torch.cat(likely).numpy(), torch.cat(first).numpy()))
        return self.units(found)

    def _judge(self, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The targets' log-probability, and whether each is the first choice."""
        logits = self.model.lm_head(hidden).float()
        chosen = logits.gather(1, targets[:, None])[:, 0]
        return chosen - logits.logsumexp(-1), logits.argmax(-1) == targets


@dataclass
class Language(Target):
    """SmolLM2 on two texts: perplexity and cloze."""

    texts: tuple[str, ...] = ()
    folder: Path = Path()
    cloze: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def load(cls, name: str, folder: Path, texts: tuple[str, ...]) -> Language:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype="bfloat16").eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        target = cls(name, model, tokenizer, texts=texts, folder=folder)
        for text in texts:
            target._remember_text(target._passages(text)[0])
        return target

    def _passages(self, text: str, count: int = 16) -> tuple[list[str], list[str]]:
        """Long passages to evaluate on, and the paragraphs that are left."""
        paragraphs = json.loads((self.folder / "texts" / f"{text}.json").read_text())
        found, used = [], 0
        for _ in range(count):
            passage = ""
            while len(self.processor(passage)["input_ids"]) < 256:
                passage += (" " if passage else "") + paragraphs[used]
                used += 1
            found.append(passage)
        return found, paragraphs[used:]

    def _remember_text(self, passages: list[str]) -> None:
        for first in range(0, len(passages), BATCH):
            tokens = self.processor(passages[first : first + BATCH], return_offsets_mapping=True)
            ids = torch.tensor([row[:256] for row in tokens["input_ids"]])
            places = torch.ones_like(ids, dtype=torch.bool)
            places[:, -1] = False
            self.remember({"input_ids": ids}, places)
            words = [
                _words(text, offsets[:256])
                for text, offsets in zip(
                    passages[first : first + BATCH], tokens["offset_mapping"], strict=True
                )
            ]
            self.cloze.append(np.array(words))

    @property
    def facts(self) -> dict[str, list[Any]]:
        return {"texts": list(self.texts)}

    def samples(self, seed: int, count: int = 512) -> list[Sample]:
        each = count // len(self.texts)
        return [s for text in self.texts for s in self._short(text, seed, each)]

    def _short(self, text: str, seed: int, count: int) -> list[Sample]:
        """Passages of 40 tokens, in whole words, from what is not evaluated on."""
        rng = random.Random(f"{text}-{seed}")
        _, paragraphs = self._passages(text)
        pieces = []
        for paragraph in rng.sample(paragraphs, len(paragraphs)):
            offsets = self.processor(paragraph, return_offsets_mapping=True)["offset_mapping"]
            pieces += [
                paragraph[offsets[i][0] : offsets[i + 39][1]].strip() for i in range(0, len(offsets) - 39, 40)
            ]
            if len(pieces) >= count:
                break
        return [Sample(piece) for piece in pieces[:count]]

    def units(self, found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Units:
        units: Units = {}
        for text, (rows, likely, first), words in zip(self.texts, found, self.cloze, strict=True):
            count = rows.max() + 1
            units[f"nll {text}"] = -likely.reshape(count, -1).mean(1)
            hit = first.reshape(count, -1)
            right, asked = np.zeros(count), np.zeros(count)
            for row in range(count):
                for word in range(1, words[row].max() + 1):
                    places = np.flatnonzero(words[row] == word) - 1  # a token is judged where it is predicted
                    asked[row] += 1
                    right[row] += hit[row, places].all()
            units[f"right {text}"], units[f"asked {text}"] = right, asked
        return units


def name_of(layers: Sequence[int]) -> str:
    """The file name of a set of missing layers."""
    return format_layers(tuple(layers)) if layers else "dense"


def _words(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the number of the word it belongs to, counted from 1, or 0.

    Lower-case words of at least four letters, whole within the passage and not at its start.
    """
    marks = [0] * len(offsets)
    number = 0
    for match in re.finditer(r"(?<=\s)[a-z]{4,}\b", text):
        tokens = [
            i
            for i, (start, end) in enumerate(offsets)
            if start < match.end() and end > match.start() and end > start
        ]
        if tokens and tokens[0] > 0 and tokens[-1] < len(offsets) - 1:
            number += 1
            for token in tokens:
                marks[token] = number
    return marks


@dataclass
class Vision(Target):
    """A LLaVA on one half of the embedded tasks' documents."""

    documents: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, name: str, path: str, half: str, each: int = 150, dtype: str = "float32") -> Vision:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from lmms_topoprune._util.packaged import model_path

        folder = model_path() if path == "embedded" else Path(path)
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
        target = cls(name, model, AutoProcessor.from_pretrained(folder))
        for task in TASK_NAMES:
            lines = (TASKS / "data" / f"{task}.jsonl").read_text().splitlines()
            chosen = [doc for doc in map(json.loads, lines) if doc["half"] == half][:each]
            target.documents += [{**doc, "task": task} for doc in chosen]
        target._remember_documents()
        return target

    def _remember_documents(self) -> None:
        sys.path.insert(0, str(TASKS))
        from hooks import image  # type: ignore[import-not-found]

        self.processor.tokenizer.padding_side = "right"
        for first in range(0, len(self.documents), BATCH):
            docs = self.documents[first : first + BATCH]
            prompts = [self._prompt(doc["question"]) for doc in docs]
            # Where the template does not end with a space or a line, the answer begins with one.
            gap = "" if prompts[0][-1].isspace() else " "
            answers = [f"{gap}{doc['answer']}{self.processor.tokenizer.eos_token}" for doc in docs]
            images = [image(doc) for doc in docs]
            inputs = self._encode(images, [p + a for p, a in zip(prompts, answers, strict=True)])
            places = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
            for row, answer in enumerate(answers):
                count = len(self.processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
                end = int(inputs["attention_mask"][row].sum())
                places[row, end - count - 1 : end - 1] = True
            self.remember(inputs, places)

    def _prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return prompt

    def _encode(self, images: list[Any], texts: list[str]) -> Any:
        return self.processor(images=images, text=texts, return_tensors="pt", padding=True)

    @property
    def facts(self) -> dict[str, list[Any]]:
        return {"chance": self.chance.tolist()}

    def samples(self, seed: int, count: int = 512) -> list[Sample]:
        from lmms_topoprune.calibration.sources import load_samples

        return load_samples("embedded", count, seed)

    def units(self, found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Units:
        right = [
            np.array([hit[rows == row].all() for row in range(rows.max() + 1)]) for rows, _, hit in found
        ]
        return {"right": np.concatenate(right).astype(float)}

    @property
    def chance(self) -> np.ndarray:
        """(documents,): how often the best constant answer to this sort of question is right."""
        sorts: dict[Any, Counter[str]] = defaultdict(Counter)
        keys = [(doc["task"], doc["kind"], len(doc["options"])) for doc in self.documents]
        for key, doc in zip(keys, self.documents, strict=True):
            sorts[key][doc["answer"]] += 1
        return np.array([max(sorts[key].values()) / sorts[key].total() for key in keys])
