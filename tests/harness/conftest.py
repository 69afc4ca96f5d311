"""A tiny LLaVA folder whose answers depend on what it is asked, and a task of lmms-eval to ask it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms_eval import models
from lmms_eval.api.instance import Instance
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from lmms_topoprune.embedded import questions, scenes

LAYERS = 6
TASK = """
task: tiny_questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function hooks.visuals
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{max_new_tokens: 8}}
process_results: !function hooks.score
metric_list: [{{metric: length, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""
HOOKS = """
from PIL import Image

def visuals(doc):
    return [Image.open(doc["image"]).convert("RGB")]

def score(doc, results):
    return {"length": len(results[0])}
"""


def spread(model: torch.nn.Module, scale: float) -> None:
    """Random weights give every question the same answer; larger ones do not."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)


@pytest.fixture(scope="session")
def save_llava(
    tiny_llava: Callable[..., LlavaForConditionalGeneration], embedded_processor: LlavaProcessor
) -> Callable[..., Path]:
    """Writes a model folder: save_llava(folder, seed=0)."""

    def save(folder: Path, seed: int = 0) -> Path:
        model = tiny_llava(layers=LAYERS, seed=seed)
        spread(model, 6.0)
        model.save_pretrained(folder)
        embedded_processor.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def folder(save_llava: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def load(folder: Path) -> Callable[..., Any]:
    """Creates a registered model: load("dense_llava", kind="simple", layers="2")."""

    def create(name: str, kind: str = "chat", **arguments: Any) -> Any:
        made = models.get_model(name, force_simple=kind == "simple")
        return made(**{"pretrained": str(folder), "self_test": False, **arguments})

    return create


@dataclass(frozen=True)
class Asked:
    """Questions with images, as requests of lmms-eval."""

    docs: list[dict[str, Any]]

    def requests(self, kind: str, settings: dict[str, Any] | None = None) -> list[Instance]:
        shared = settings if settings is not None else {"max_new_tokens": 8, "until": ["\n\n"]}
        return [self._request(kind, index, shared) for index in range(len(self.docs))]

    def _request(self, kind: str, index: int, settings: dict[str, Any]) -> Instance:
        text = self.docs[index]["question"]
        tail = (index, "tiny", "test")
        arguments = (
            (text, settings, visuals, *tail) if kind == "simple" else (text, messages, settings, *tail)
        )
        return Instance("generate_until", arguments, 0, {"task": "tiny", "doc_id": index, "repeats": 1})

    def ask(self, lm: Any, requests: list[Instance]) -> list[str]:
        lm.task_dict = {"tiny": {"test": self.docs}}
        return [getattr(answer, "text", answer) for answer in lm.generate_until(requests)]


def visuals(doc: dict[str, Any]) -> list[Image.Image]:
    return doc["images"]


def messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
    content = [{"type": "image", "url": image} for image in doc["images"]]
    return [{"role": "user", "content": [*content, {"type": "text", "text": doc["question"]}]}]


@pytest.fixture(scope="session")
def asked() -> Asked:
    """Eleven questions of different length; one has two images."""
    rng = random.Random(1)
    docs: list[dict[str, Any]] = []
    while len(docs) < 11:
        scene = scenes.random_scene(rng, "train")
        if question := questions.ask(rng, scene, rng.choice(questions.KINDS), rng.random() < 0.5):
            text = question.text + " Look closely." * (len(docs) % 4)
            docs.append({"question": text, "images": [scenes.render(scene)]})
    docs[3]["images"] = [*docs[3]["images"], *docs[4]["images"]]
    return Asked(docs)


@pytest.fixture(scope="session")
def tasks(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --include_path with the task tiny_questions."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for index, doc in enumerate(asked.docs):
        doc["images"][0].save(folder / f"{index}.png")
        rows.append({"question": doc["question"], "answer": "yes", "image": str(folder / f"{index}.png")})
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "tiny.yaml").write_text(TASK.format(data=data))
    return folder
