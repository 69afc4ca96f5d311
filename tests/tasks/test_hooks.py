"""Reading answers and scoring them, checked against lmms-eval's own MME and by brute force."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import yaml
from lmms_eval.tasks.mme.utils import mme_aggregate_results

from lmms_topoprune._util.packaged import shared_path
from training.embedded.build import END
from training.make_tasks import TASKS

Rows = Callable[[str], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("yes", "yes"),
        (" Yes.", "yes"),
        ("No, there is none", "no"),
        ("not sure", ""),
        ("", ""),
        ("nothing", ""),
    ],
)
def test_yes_or_no_is_the_first_word(hooks: Any, text: str, read: str) -> None:
    assert hooks.read_yesno(text) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("D. red", "D"),
        ("b", "B"),
        ("a circle", ""),
        ("Because", ""),
        ("", ""),
        ("E", ""),
    ],
)
def test_the_letter_comes_first(hooks: Any, text: str, read: str) -> None:
    assert hooks.read_letter(text) == read


@pytest.mark.parametrize(
    ("text", "read"), [("The Red.", "red"), ("two", "2"), ("a circle", "circle"), ("dark red", "dark red")]
)
def test_phrases_are_normalized(hooks: Any, text: str, read: str) -> None:
    assert hooks.read_phrase(text) == read


def test_an_option_in_words_counts_as_its_letter(hooks: Any, rows: Rows) -> None:
    row = rows("choice")[0]
    right = row["options"]["ABCD".index(row["answer"])]
    for text, score in ((row["answer"], 1.0), (right, 1.0), ("", 0.0), ("purple cow", 0.0)):
        assert hooks.score_choice(row, [text])["accuracy"]["score"] == score
    assert hooks.score_choice(row, ["  "])["empty"] == 1


@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_mme(hooks: Any, rows: Rows, seed: int) -> None:
    rng = random.Random(seed)
    scored = [hooks.score_yesno(row, [rng.choice(("yes", "no", "maybe"))]) for row in rows("yesno")]
    for ability in ("perception", "cognition"):
        items = [metrics[f"{ability}_score"] for metrics in scored]
        theirs = mme_aggregate_results([item for item in items if item is not None])
        assert hooks.mme_score(items) == pytest.approx(theirs)


def test_an_image_with_one_question_is_left_out(hooks: Any, rows: Rows) -> None:
    scored = [hooks.score_yesno(row, [row["answer"]])["perception_score"] for row in rows("yesno")[:3]]
    assert hooks.mme_score(scored) == 200.0
    assert hooks.mme_score(scored[:1]) is None


def test_guessing_is_what_coins_score_on_average(hooks: Any) -> None:
    outcomes = [100 * ((a + b) / 2 + (a + b == 2)) for a, b in product((0, 1), repeat=2)]
    assert sum(outcomes) / 4 == hooks.COIN
    assert hooks.mme_guessed([{"category": "color"}, None, {"category": "shape"}]) == 2 * hooks.COIN


@pytest.mark.parametrize("task", TASKS)
def test_chance_is_the_best_constant_answer_and_stands_in_the_yaml(hooks: Any, rows: Rows, task: str) -> None:
    score = getattr(hooks, f"score_{task}")
    items = [score(row, [""])["chance"] for row in rows(task)]
    answers = {item["answer"] for item in items}
    best = 0
    for sort in {item["sort"] for item in items}:
        given = [score(row, [a])["accuracy"]["score"] for a in answers for row in rows(task)]
        table = [given[i : i + len(items)] for i in range(0, len(given), len(items))]
        best += max(sum(s for s, i in zip(line, items, strict=True) if i["sort"] == sort) for line in table)
    assert hooks.chance(items) == pytest.approx(best / len(items))
    declared = _yaml(task)["metadata"]["chance"]
    assert declared == pytest.approx(0.375 if task == "yesno" else hooks.chance(items), abs=5e-5)


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_score_one_and_fit_the_token_limit(
    hooks: Any, rows: Rows, embedded_processor: Any, task: str
) -> None:
    scored = [getattr(hooks, f"score_{task}")(row, [row["answer"]]) for row in rows(task)]
    assert hooks.mean_score([metrics["accuracy"] for metrics in scored]) == 1.0
    assert hooks.total([metrics["empty"] for metrics in scored]) == 0
    limit = _yaml(task)["generation_kwargs"]["max_new_tokens"]
    for answer in {row["answer"] for row in rows(task)}:
        assert len(embedded_processor.tokenizer(f" {answer}{END}")["input_ids"]) <= limit


@pytest.mark.parametrize("task", TASKS)
def test_every_document_has_every_metric(hooks: Any, rows: Rows, task: str) -> None:
    declared = {entry["metric"] for entry in _yaml(task)["metric_list"]}
    for row in rows(task):
        assert set(getattr(hooks, f"score_{task}")(row, ["x"])) == declared


def test_a_kind_that_was_not_asked_has_no_accuracy(hooks: Any) -> None:
    assert hooks.mean_score([None, None]) is None
    # Nor does it count in the group's mean.
    assert hooks.mean_of_tasks([0.5, None, 1.0], [1, 1, 1], False) == 0.75
    assert hooks.mean_of_tasks([None], [1], False) is None


def _yaml(task: str) -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    text = (shared_path("tasks") / f"topoprune_{task}.yaml").read_text()
    return yaml.load(text, Loader)
