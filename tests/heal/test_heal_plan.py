"""A plan with a healing: carried out, exported, told apart from the same plan without; the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaProcessor, PreTrainedModel

from lmms_topoprune.calibration.calibration_set import CalibrationSets
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.cli.main import main
from lmms_topoprune.errors import InputError, MissingExtraError, OptionError, SurgeryError
from lmms_topoprune.heal import healing
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner, apply_plan, make_plan
from lmms_topoprune.plan import PruningPlan, healing_told
from lmms_topoprune.results.reading import plan_label, series
from lmms_topoprune.surgery import export, load_pruned
from lmms_topoprune.surgery.model_card import model_card
from lmms_topoprune.sweep.folder import SweepFolder
from lmms_topoprune.sweep.recipe import Recipe

IDS = {"input_ids": torch.arange(3, 12)[None]}
HEAL = "steps=2+rank=2+batch=4"

Make = Callable[..., PreTrainedModel]


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(**IDS).logits


def plan_for(
    model: PreTrainedModel, processor: LlavaProcessor, given: Sequence[Sample], **more: Any
) -> PruningPlan:
    options = PruningOptions(**{"layers": "2-3", "samples": 16, "heal": HEAL, **more})
    return make_plan(model, processor, options, name="dense", samples=given, progress=False)


@pytest.mark.parametrize("repair", ["none", "linear"])
def test_an_exported_healing_loads_in_plain_transformers(
    repair: str,
    tiny_llava: Make,
    embedded_processor: LlavaProcessor,
    samples: Sequence[Sample],
    tmp_path: Path,
) -> None:
    model, given = tiny_llava(layers=6), samples[:16]
    plan = plan_for(model, embedded_processor, given, repair=repair)
    dense = logits(model)
    deletion = apply_plan(model, embedded_processor, plan, samples=given)
    folder = export(model, embedded_processor, plan, tmp_path / "healed")
    loaded, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not {key: keys for key, keys in report.items() if keys}
    assert torch.equal(logits(loaded), logits(model))
    assert type(loaded) is type(model) and not (folder / "mergekit.yaml").exists()
    told = PruningPlan.load(folder / "plan.json")
    assert told.hash == plan.hash and told.heal == plan.heal
    assert {"steps", "tokens", "loss_before", "loss_after"} <= told.stages["heal"].keys()
    card = (folder / "README.md").read_text()
    assert "healed in 2 steps (lora) by the dense model" in card
    assert ("nothing was trained" in card) != told.is_trained
    with pytest.raises(InputError, match="which needs the layers"):
        load_pruned(folder, plan)
    with pytest.raises(InputError, match="the plan has no healing"):
        export(model, None, replace(plan, heal={}), tmp_path / "other")
    deletion.restore()
    assert torch.equal(logits(model), dense)


def test_what_a_pass_found_makes_no_row_of_its_own() -> None:
    plans = [
        PruningPlan("x", "x", 8, (2,), "cosine", {"sparsity": 0.1, "seed": seed, "massive": found})
        for seed, found in ((0, "1"), (1, "1+3"))
    ]
    assert series(plans[0]) == series(plans[1])
    assert series(plans[0]) != series(replace(plans[0], criterion="angular"))


def test_a_healing_has_names_of_its_own(
    tiny_llava: Make, embedded_processor: LlavaProcessor, samples: Sequence[Sample], tmp_path: Path
) -> None:
    """Plans, folders of a sweep, labels and rows: nothing healed passes for unhealed, or for another."""
    model, given = tiny_llava(layers=6), samples[:16]
    kinds = ({"heal": "none"}, {}, {"heal": "200"}, {"repair": "linear"})
    plans = [plan_for(model, embedded_processor, given, **kind) for kind in kinds]
    for name in (lambda p: p.hash, SweepFolder(tmp_path).evaluation, plan_label, series):
        assert len({name(plan) for plan in plans}) == 4
    assert plan_label(plans[2]).startswith("given heal=steps=200 ")
    assert "repair=linear heal=steps=2+rank=2+batch=4" in plan_label(plans[3])
    assert "2 steps of healing" in str(plans[1]) and "healing" not in str(plans[0])


def test_a_plan_file_redoes_its_healing_or_refuses(
    tiny_llava: Make, embedded_processor: LlavaProcessor, samples: Sequence[Sample], tmp_path: Path
) -> None:
    model, given = tiny_llava(layers=6), samples[:16]
    plan = plan_for(model, embedded_processor, given)
    plan.save(tmp_path / "plan.json")
    file = {"layers": None, "plan": str(tmp_path / "plan.json")}
    for asked in ("none", HEAL):
        assert plan_for(model, embedded_processor, given, **file, heal=asked) == plan
    with pytest.raises(OptionError, match="heal is 'steps=3', but the plan says"):
        plan_for(model, embedded_processor, given, **file, heal="3")
    with pytest.raises(OptionError, match="the plan is healed without one"):
        plan_for(model, embedded_processor, given, **file, repair="linear")
    with pytest.raises(InputError, match="the plan's healing was fitted to calibration samples"):
        apply_plan(model, embedded_processor, plan, samples=samples)
    with pytest.raises(InputError, match="the plan's healing lacks steps"):
        replace(plan, heal={name: value for name, value in plan.heal.items() if name != "steps"})


def test_the_dense_model_answers_once_for_many_healings(
    tiny_llava: Make,
    embedded_processor: LlavaProcessor,
    samples: Sequence[Sample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plans from one calibration set ask and word nothing twice, and heal as in a run by itself."""
    model, given, asked, worded = tiny_llava(layers=6), samples[:16], [], []
    plans = [plan_for(model, embedded_processor, given, layers=layers) for layers in ("2-3", "1+4")]
    with apply_plan(model, embedded_processor, plans[1], samples=given):
        alone = logits(model)
    generate, sets = type(model).generate, CalibrationSets(given=given)
    monkeypatch.setattr(
        type(model), "generate", lambda *args, **more: asked.append(1) or generate(*args, **more)
    )
    counts, word = [], Prompter._word
    monkeypatch.setattr(Prompter, "_word", lambda *args: worded.append(1) or word(*args))
    for plan in plans:
        with apply_plan(model, embedded_processor, plan, calibrations=sets):
            healed = logits(model)
        counts.append(len(asked))
    assert counts[0] == counts[1] > 0 and len(worded) == len(given)
    assert torch.equal(healed, alone)


def test_a_recipe_heals_every_cell_and_names_it() -> None:
    recipe = Recipe(
        criteria=["cosine"], sparsities=[0.3], repairs=["none", "linear"], heals=["none", "steps=9+rank=2"]
    )
    assert recipe.grid.criteria == (
        "cosine",
        "cosine:heal=steps=9+rank=2",
        "cosine:repair=linear",
        "cosine:repair=linear:heal=steps=9+rank=2",
    )
    options = [point.options({}) for point in recipe.grid.points()]
    assert [o.healing.rank if o.healing else None for o in options] == [None, 2, None, 2]
    with pytest.raises(OptionError, match="stepz"):
        Recipe(heals=["stepz=9"])


@pytest.fixture
def folder(tiny_llava: Make, embedded_processor: LlavaProcessor, tmp_path: Path) -> Path:
    tiny_llava(layers=6).save_pretrained(tmp_path / "dense")
    embedded_processor.save_pretrained(tmp_path / "dense")
    lines = [json.dumps({"instruction": f"The number {i} is followed by {i + 1}."}) for i in range(20)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return tmp_path


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_the_command_writes_an_ordinary_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, texts = (
        ("--pretrained", folder / "dense", "--device", "cpu"),
        ("--calibration", folder / "texts.jsonl"),
    )
    assert call("plan", *model, "--layers", "2-3", "-o", folder / "plan.json") == 0
    capsys.readouterr()
    given = (
        "heal",
        "--plan",
        folder / "plan.json",
        "--device",
        "cpu",
        *texts,
        "--samples",
        "20",
        "--batch",
        "4",
    )
    assert call(*given, "-o", folder / "healed", "--steps", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["layers"] == 4 and told["steps"] == 2 and told["tokens"] > 0
    plan = PruningPlan.load(folder / "healed" / "plan.json")
    assert plan.repair["method"] == "linear" and plan.heal["source"] == str(folder / "texts.jsonl")
    assert (
        AutoModelForImageTextToText.from_pretrained(folder / "healed").config.text_config.num_hidden_layers
        == 4
    )
    assert not (folder / "healed.healing").exists()
    assert call(*given, "-o", folder / "healed") == 2  # the folder is not empty
    assert "--overwrite" in capsys.readouterr().err
    again = ("heal", "--plan", folder / "healed" / "plan.json", "--device", "cpu", "-o", folder / "again")
    for more, sentence in (
        (("--repair", "none"), "repair is 'none', but the plan starts from 'linear'"),
        (("--steps", "4"), "steps is 4, but the plan is healed with 2"),
        (("--full",), "method is 'full', but the plan is healed with 'lora'"),
    ):
        assert call(*again, *more) == 2
        assert sentence in capsys.readouterr().err
    assert call(*again[:-1], folder / "once-more", "--learning-rate", "0.0005") == 0  # as the plan has it
    capsys.readouterr()
    (folder / "again.healing").write_text("mine")
    assert call(*again) == 2
    assert "is a file, but a healing keeps its checkpoints there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ({}, "healed in 9 steps (lora) by the dense model"),
        ({"steps": 1, "kept": 1}, "healed in 1 step (lora) by the dense model"),
        ({"steps": 8, "kept": 4}, "by the dense model; the weights after step 4 were kept"),
        ({"steps": 8, "kept": 0}, "by the dense model; it gained nothing"),
    ],
)
def test_a_healing_is_told_with_the_step_that_was_kept(done: dict[str, float], told: str) -> None:
    facts = {"method": "lora", "version": 1, "steps": 9, "samples": 16, "seed": 0, "fingerprint": "x"}
    facts |= {"source": "texts.jsonl", "teacher": "the dense model"}
    plan = PruningPlan("x", "x", 8, (2,), "given", heal=facts).with_stages(heal=done)
    assert told in healing_told(plan)
    assert plan.is_trained == (done.get("kept") != 0)
    card = model_card(plan, model_class="LlamaForCausalLM", parameters=1)
    assert ("nothing was trained" in card) == (done.get("kept") == 0)
    assert ("are as they were: healed in 8 steps" in " ".join(card.split())) == (done.get("kept") == 0)


@pytest.mark.slow
def test_two_processes_share_every_step_and_write_one_folder(folder: Path) -> None:
    model, texts = ("--pretrained", folder / "dense", "--device", "cpu"), folder / "texts.jsonl"
    assert call("plan", *model, "--layers", "2-3", "-o", folder / "plan.json") == 0
    given = [
        "--plan",
        folder / "plan.json",
        *model[2:],
        "--calibration",
        texts,
        "--samples",
        "20",
        "--batch",
        "4",
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "lmms_topoprune.cli.main", "heal", *map(str, given), "-o", str(folder / "healed")]
    done = subprocess.run([*command, "--steps", "2", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)  # by one of them alone
    assert told["steps"] == 2 and told["loss_after"] <= told["loss_before"]
    assert (
        AutoModelForImageTextToText.from_pretrained(folder / "healed").config.text_config.num_hidden_layers
        == 4
    )


@pytest.mark.parametrize(
    ("kind", "error", "sentence"),
    [
        ("quantized", SurgeryError, "quantized"),
        ("peft", MissingExtraError, "needs peft"),
        ("samples", InputError, "8 calibration samples"),
        ("leak", OptionError, "which task 'quiz' is evaluated on"),
        ("folder", OptionError, "which task 'quiz' is evaluated on"),
    ],
)
def test_what_cannot_be_healed_is_refused_before_anything_is_loaded(
    kind: str, error: type[Exception], sentence: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planner has no model here."""
    wanted = {"layers": "2-3", "samples": 16, "heal": HEAL}
    planner = Planner(str(folder / "dense"), asked=lambda s: ("quiz",) if s.endswith(".jsonl") else ())
    if kind == "quantized":
        config = json.loads((folder / "dense" / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "fp8"}
        (folder / "dense" / "config.json").write_text(json.dumps(config))
    elif kind == "peft":
        monkeypatch.setattr(healing, "find_spec", lambda name: None)
    elif kind == "samples":
        wanted["samples"] = 8
    elif kind == "leak":
        wanted["calibration"] = str(folder / "texts.jsonl")
    else:  # the model was healed by these documents before
        facts = {"method": "lora", "version": 1, "steps": 2, "samples": 16, "seed": 0, "fingerprint": "x"}
        facts["source"] = str(folder / "texts.jsonl")
        PruningPlan("x", "x", 8, (2,), "given", heal=facts).save(folder / "dense" / "plan.json")
    with pytest.raises(error, match=sentence):
        planner.check(PruningOptions(**wanted))
