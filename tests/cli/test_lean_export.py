"""`topoprune export` reads no dropped layer, whatever type the plan was made in; other plans are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import folders
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from lmms_topoprune.cli import export
from lmms_topoprune.cli.export import _figures
from lmms_topoprune.errors import InputError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import delete_layers, fingerprint

IDS = {"input_ids": torch.arange(3, 12)[None]}


@pytest.fixture
def half(model_folder: Path, tmp_path: Path) -> Path:
    """The model in bfloat16, as models are published; on a CPU a plan is made in float32."""
    folder = shutil.copytree(model_folder, tmp_path / "half")
    LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def plan(topoprune, half, tmp_path) -> Path:
    given = ("--criterion", "uniform", "--sparsity", 0.4, "--pretrained", half, "--device", "cpu")
    assert topoprune("plan", *given, "-o", tmp_path / "plan.json")[0] == 0
    return tmp_path / "plan.json"


def test_the_dense_model_is_never_loaded(topoprune, half, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_dense", lambda *_: pytest.fail("loaded dense"))
    given = ("--pretrained", half, "--plan", plan, "-o", tmp_path / "out", "--device", "cpu", "--json")
    code, out, _ = topoprune("export", *given)
    assert code == 0 and json.loads(out)["layers"] == 4
    expected = LlavaForConditionalGeneration.from_pretrained(half, dtype="auto")
    delete_layers(expected, PruningPlan.load(plan).dropped)
    found = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", dtype="auto")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found(**IDS).logits, expected(**IDS).logits)
    assert (tmp_path / "out" / "processor_config.json").exists()


def test_another_models_plan_is_refused(topoprune, half, plan, tmp_path):
    other = LlavaForConditionalGeneration.from_pretrained(half)
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    other.save_pretrained(half)
    code, _, err = topoprune("export", "--pretrained", half, "--plan", plan, "-o", tmp_path / "out")
    assert code != 0 and "make a new plan for this model" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_plan_that_only_the_dense_model_confirms_is_carried_out_on_it(topoprune, half, plan, tmp_path):
    """Files of several types: what their fingerprint would be, nobody can tell before they are loaded."""
    model = LlavaForConditionalGeneration.from_pretrained(half, dtype=torch.bfloat16)
    model.lm_head.float()
    model.save_pretrained(half)
    dense = LlavaForConditionalGeneration.from_pretrained(half, dtype="auto")
    wanted = PruningPlan("half", fingerprint(dense), 6, (2,), "given")
    wanted.save(plan)
    code, out, _ = topoprune(
        "export", "--pretrained", half, "--plan", plan, "-o", tmp_path / "out", "--device", "cpu", "--json"
    )
    assert code == 0 and json.loads(out)["layers"] == 5


def test_without_a_model_it_is_the_plans_own(topoprune, half, plan, tmp_path):
    (tmp_path / "figures.json").write_text('{"MME": {"dense": 1500, "pruned": 1400}}')
    told = ("--figures", tmp_path / "figures.json", "--device", "cpu")
    code, out, err = topoprune("export", "--plan", plan, "-o", tmp_path / "out", *told, "--json")
    assert code == 0, err
    assert "| MME | 1500 | 1400 |" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads(out)["layers"] == 4
    before, after = (json.loads((place / "config.json").read_text()) for place in (half, tmp_path / "out"))
    assert after["text_config"].pop("num_hidden_layers") == 4
    assert before["text_config"].pop("num_hidden_layers") == 6
    assert after == before


def test_the_cards_figures_come_from_the_results_of_the_plan(tmp_path):
    plan, other = folders.plan((3, 4)), folders.plan((5, 6))
    scores = {"dense": ([1.0, 1.0, 1.0, 0.0], None), "pruned": ([1.0, 0.0, 1.0, 0.0], plan)}
    for name, (exact, made) in scores.items():
        more = {} if made is None else {"model": "topopruned_llava"}
        folders.write(tmp_path / name, {"vqa": folders.exact(exact)}, made, **more)
    found = _figures(tmp_path, plan)
    assert found == {"vqa": {"metric": "exact_match", "dense": 75.0, "pruned": 50.0}}
    with pytest.raises(InputError, match=f"holds no results of the plan {other.hash}"):
        _figures(tmp_path, other)
