"""Stand-in rows for the real MME, GQA and MMBench data sets, in their schema, made of rendered scenes.

lmms-eval loads `lmms-lab-encoder/MME`, GQA and MMBench; a local folder of that relative name in
the working directory is loaded instead of the hub's.
"""

from __future__ import annotations

import random
from itertools import zip_longest
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from lmms_topoprune.embedded import scenes
from lmms_topoprune.embedded.questions import Question, as_choice, ask

MME_CATEGORIES = {
    "existence": "existence",
    "count": "count",
    "relation": "position",
    "color": "color",
    "extreme": "commonsense_reasoning",
}
MME_SUFFIX = " Please answer yes or no."
GQA_SPLIT = "testdev"


def write_mme(folder: Path, images: int) -> None:
    """`images` images with a yes and a no question each, in `folder`/lmms-lab-encoder/MME."""
    rng = random.Random("mme")
    kinds = list(MME_CATEGORIES)
    rows: list[dict] = []
    while len(rows) < 2 * images:
        scene = scenes.random_scene(rng, "test")
        kind = kinds[len(rows) // 2 % len(kinds)]
        asked = [ask(rng, scene, kind, True) for _ in range(40)]
        pair = {question.answer: question for question in asked if question is not None}
        for question in pair.values() if len(pair) == 2 else ():
            rows.append(
                {
                    "question_id": f"{MME_CATEGORIES[kind]}/{len(rows) // 2:04d}.png",
                    "image": scenes.render(scene),
                    "question": question.text + MME_SUFFIX,
                    "answer": question.answer.capitalize(),
                    "category": MME_CATEGORIES[kind],
                }
            )
    text = {name: Value("string") for name in ("question_id", "question", "answer", "category")}
    features = Features({"question_id": text["question_id"], "image": Image(), **text})
    _write(rows, folder / "lmms-lab-encoder/MME/data/test-00000-of-00001.parquet", features)


def write_gqa(folder: Path, questions: int) -> None:
    """`questions` open questions, two an image, in `folder`/lmms-lab-encoder/GQA with both configurations."""
    rng = random.Random("gqa")
    kinds = ("color", "size", "relation", "existence", "shape")
    rows: list[dict] = []
    images: list[dict] = []
    while len(rows) < questions:
        scene = scenes.random_scene(rng, "test")
        asked = [ask(rng, scene, rng.choice(kinds), False) for _ in range(2)]
        if None in asked:
            continue
        image_id = f"n{len(images):06d}"
        images.append({"id": image_id, "image": scenes.render(scene)})
        rows += [_gqa_row(f"{len(rows) + i:08d}", image_id, question) for i, question in enumerate(asked)]
    target = folder / "lmms-lab-encoder/GQA"
    configs = {"testdev_balanced_images": images, "testdev_balanced_instructions": rows[:questions]}
    for name, content in configs.items():
        features = Features({"id": Value("string"), "image": Image()}) if name.endswith("images") else None
        _write(content, target / name / f"{GQA_SPLIT}-00000-of-00001.parquet", features)
    _write_card(target, tuple(configs), GQA_SPLIT)


def write_mmbench(folder: Path, questions: int) -> None:
    """`questions` questions of two to four options in `folder`/lmms-lab-encoder/MMBench."""
    rng = random.Random("mmbench")
    kinds = ("color", "shape", "size", "count")
    rows: list[dict] = []
    while len(rows) < questions:
        scene = scenes.random_scene(rng, "test")
        kind = kinds[len(rows) % len(kinds)]
        question = ask(rng, scene, kind, False)
        if question is None:
            continue
        _, options, letter = as_choice(rng, question)
        rows.append(
            {
                "index": len(rows),
                "question": question.text,
                "hint": "nan",
                "answer": letter,
                **dict(zip_longest("ABCDE", options, fillvalue="nan")),
                "category": kind,
                "L2-category": "attribute_reasoning",
                "image": scenes.render(scene),
                "source": "scenes",
                "split": "dev",
            }
        )
    features = Features(
        {name: Value("int64" if name == "index" else "string") for name in rows[0]} | {"image": Image()}
    )
    _write(rows, folder / "lmms-lab-encoder/MMBench/en/dev-00000-of-00001.parquet", features)
    _write_card(folder / "lmms-lab-encoder/MMBench", ("en",), "dev")


def _gqa_row(number: str, image_id: str, question: Question) -> dict:
    return {
        "id": number,
        "imageId": image_id,
        "question": question.text,
        "answer": question.answer,
        "fullAnswer": f"{question.answer.capitalize()}.",
        "isBalanced": True,
        "groups": {"global": question.kind, "local": f"{image_id}-{question.kind}"},
        "entailed": "[]",
        "equivalent": f"['{number}']",
        "types": {"structural": "query", "semantic": "attr", "detailed": question.kind},
        "annotations": {"answer": [], "fullAnswer": [], "question": []},
        "semantic": [{"operation": "query", "argument": question.kind, "dependencies": [0]}],
        "semanticStr": f"query: {question.kind} [0]",
    }


def _write(rows: list[dict], path: Path, features: Features | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)


def _write_card(folder: Path, configs: tuple[str, ...], split: str) -> None:
    lines = ["---", "configs:"]
    for name in configs:
        lines += [
            f"- config_name: {name}",
            "  data_files:",
            f"  - split: {split}",
            f"    path: {name}/{split}-*.parquet",
        ]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
