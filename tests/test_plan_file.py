"""A plan file: every malformed field is one sentence, and its JSON Schema is published."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import MOST_LAYERS, PruningPlan, healing_told, schema_text

PUBLISHED = Path(__file__).parents[1] / "docs" / "plan.schema.json"


@pytest.fixture
def plan() -> PruningPlan:
    return PruningPlan(
        "tiny",
        "f" * 16,
        6,
        (2, 3),
        "cosine",
        {"sparsity": 0.3},
        {"source": "embedded", "samples": 8},
        scores=(0.0, 1.0, 2.0, 3.0, 0.5, 0.25),
        versions={"python": "3.12"},
        stages={"calibrate": {"seconds": 1.0, "peak_bytes": 3}},
    )


def write(path: Path, plan: PruningPlan, **fields: Any) -> Path:
    path.write_text(json.dumps({**plan.to_json(), **fields}))
    return path


def test_what_is_saved_is_read(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan


def test_trials_are_kept_and_are_no_part_of_the_plan_s_name(plan, tmp_path):
    settled = replace(plan, trials=({"by": "topology", "dropped": [2, 3], "loss": 2.5, "note": "kept"},))
    settled.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == settled
    assert settled.hash == plan.hash


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"layers": "six"}, "has layers = 'six', which should be a valid integer"),
        ({"layers": True}, "has layers = True, which should be a valid integer"),
        ({"layers": 10**9}, f"has layers = 1000000000, which should be less than or equal to {MOST_LAYERS}"),
        ({"dropped": [1, -2]}, r"has dropped\.1 = -2, which should be greater than or equal to 0"),
        ({"dropped": "2"}, "has dropped = '2', which should be a valid list"),
        ({"model": None}, "has model = None, which should be a valid string"),
        ({"scores": [1, 2, "x", 4, 5, 6]}, r"has scores\.2 = 'x', which should be a valid number"),
        ({"scores": [1, 2]}, "cannot be used: the plan has 2 scores for 6 layers"),
        ({"stages": {"load": 3}}, r"has stages\.load = 3, which should be a valid dictionary"),
        (
            {"stages": {"load": {"seconds": "3"}}},
            r"has stages\.load\.seconds = '3', which should be a valid number",
        ),
        ({"versions": {"torch": 2}}, r"has versions\.torch = 2, which should be a valid string"),
        ({"parameters": []}, r"has parameters = \[\], which should be a valid dictionary"),
        ({"hash": 7}, "has hash = 7, which should be a valid string"),
        ({"trials": [{"by": "a", "dropped": [1]}]}, r"lacks the field trials\.0\.loss"),
        (
            {"trials": [{"by": "a", "dropped": [1], "loss": "2"}]},
            r"has trials\.0\.loss = '2', which should be a valid number",
        ),
        (
            {"trials": [{"by": "a", "dropped": [1], "loss": 2.0, "also": 5}]},
            r"has trials\.0\.also = 5, which should be a valid list",
        ),
        ({"layer": 7}, "has a field 'layer', which no plan has"),
        ({"criterion": "random"}, "was changed after it was saved: its hash does not match"),
    ],
)
def test_a_malformed_field_is_one_sentence(plan, tmp_path, fields, sentence):
    file = write(tmp_path / "plan.json", plan, **fields)
    with pytest.raises(InputError, match=f"^plan '.*plan.json' {sentence}$"):
        PruningPlan.load(file)


def test_a_healing_that_lacks_a_figure_is_told_without_it():
    facts = {"version": 1, "source": "x", "samples": 1, "seed": 0, "fingerprint": "y"}
    heal = {"method": "lora", "steps": 3, "teacher": "dense", **facts}
    plan = PruningPlan("tiny", "f" * 16, 6, (2,), "given", heal=heal, stages={"heal": {"loss_after": 1.0}})
    assert healing_told(plan) == "healed in 3 steps (lora) by dense"


def test_a_missing_field_is_named(plan, tmp_path):
    data = plan.to_json()
    del data["fingerprint"]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"lacks the field fingerprint$"):
        PruningPlan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("text", ['{"schema": "topoprune-plan/1", "scores": [NaN]}', "[" * 100_000])
def test_what_json_cannot_say_is_a_sentence(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=r"^plan '.*plan.json' "):
        PruningPlan.load(tmp_path / "plan.json")


def test_the_published_schema_is_current():
    assert PUBLISHED.read_text() == schema_text(), "python -m lmms_topoprune.plan makes it"


def test_a_pipe_is_no_plan(tmp_path):
    """It would be waited for without end."""
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"^plan '.*plan.json' cannot be read: it is a pipe or a device"):
        PruningPlan.load(tmp_path / "plan.json")
