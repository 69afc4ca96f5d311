"""An exported folder is complete, loads in plain transformers, and appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaProcessor, PreTrainedModel

from lmms_topoprune.errors import InputError, OptionError
from lmms_topoprune.plan import PruningPlan
from lmms_topoprune.surgery import decoder_layers, delete_layers, export, fingerprint, load_pruned
from lmms_topoprune.surgery.export import mergekit_yaml, new_folder
from lmms_topoprune.surgery.model_card import hub_results, model_card

IMAGE = Image.new("RGB", (64, 48), "red")
IDS = {"input_ids": torch.arange(3, 12)[None]}
MESSAGE = [
    {"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "How many?"}]}
]
PLAN = PruningPlan(
    "org/dense",
    "0123456789abcdef",
    6,
    (1, 2, 4),
    "topology",
    {"k": "5", "alpha": 0.0},
    {"source": "embedded"},
    versions={"torch": "2.6"},
)


@pytest.fixture
def pruned(tiny_llava: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    model = tiny_llava(layers=6)
    delete_layers(model, PLAN.dropped)
    return model


def test_plain_transformers_loads_it(
    pruned: PreTrainedModel, embedded_processor: LlavaProcessor, tmp_path: Path
) -> None:
    folder = export(pruned, embedded_processor, PLAN, tmp_path / "new" / "pruned")
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not {key: keys for key, keys in report.items() if keys}
    assert model.config.text_config.num_hidden_layers == len(decoder_layers(model)) == 3
    with torch.no_grad():
        assert torch.equal(model(**IDS).logits, pruned(**IDS).logits)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.chat_template == embedded_processor.chat_template
    wanted = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = [each.apply_chat_template(MESSAGE, **wanted) for each in (processor, embedded_processor)]
    assert torch.equal(inputs[0].input_ids, inputs[1].input_ids)
    assert torch.equal(inputs[0].pixel_values, inputs[1].pixel_values)


def test_the_folder_is_complete_and_safe(
    pruned: PreTrainedModel, embedded_processor: LlavaProcessor, tmp_path: Path
) -> None:
    folder = export(pruned, embedded_processor, PLAN, tmp_path / "pruned", max_shard_size="100KB")
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "processor_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "plan.json",
        "mergekit.yaml",
        "README.md",
    }
    assert {Path(name).suffix for name in names} == {".json", ".safetensors", ".jinja", ".yaml", ".md"}
    assert PruningPlan.load(folder / "plan.json") == PLAN
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]


def test_a_lean_load_can_be_exported(
    tiny_llava: Callable[..., PreTrainedModel], embedded_processor: LlavaProcessor, tmp_path: Path
) -> None:
    dense = tiny_llava(layers=6)
    dense.save_pretrained(tmp_path / "dense")
    plan = replace(PLAN, fingerprint=fingerprint(dense))
    export(load_pruned(tmp_path / "dense", plan), embedded_processor, plan, tmp_path / "pruned")
    delete_layers(dense, plan.dropped)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "pruned")
    with torch.no_grad():
        assert torch.equal(model(**IDS).logits, dense(**IDS).logits)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_export_leaves_nothing(
    error: Any,
    overwrite: bool,
    pruned: PreTrainedModel,
    embedded_processor: LlavaProcessor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "pruned"
    if overwrite:
        folder.mkdir()
        (folder / "old").write_text("old")

    def stop(draft: Path) -> None:
        assert (draft / "model.safetensors").exists()
        raise error

    monkeypatch.setattr(embedded_processor, "save_pretrained", stop)
    with pytest.raises((KeyboardInterrupt, InputError), match=r"^$|cannot be written: disk full"):
        export(pruned, embedded_processor, PLAN, folder, overwrite=overwrite)
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))]
    assert left == (["pruned", "pruned/old"] if overwrite else [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a copy of this process")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_export_leaves_no_half_folder(
    overwrite: bool, pruned: PreTrainedModel, embedded_processor: LlavaProcessor, tmp_path: Path
) -> None:
    folder = tmp_path / "pruned"
    if overwrite:
        folder.mkdir()
        (folder / "old").write_text("old")
    if (child := os.fork()) == 0:
        embedded_processor.save_pretrained = lambda draft: os.kill(os.getpid(), signal.SIGKILL)
        export(pruned, embedded_processor, PLAN, folder, overwrite=overwrite)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (bench,) = tmp_path.glob(".pruned.*.tmp")  # hidden, and said to be safe to delete
    assert (bench / "new" / "model.safetensors").exists()
    assert [path.name for path in folder.glob("*")] == (["old"] if overwrite else [])
    export(pruned, embedded_processor, PLAN, folder, overwrite=overwrite)
    AutoModelForImageTextToText.from_pretrained(folder)


def test_an_interrupted_replacement_keeps_the_old_folder(
    pruned: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pruned"
    folder.mkdir()
    (folder / "old").write_text("old")
    rename = Path.rename

    def stop(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        export(pruned, None, PLAN, folder, overwrite=True)
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))]
    assert left == ["pruned", "pruned/old"]


@pytest.mark.parametrize(("where", "call"), [(Path, "mkdir"), (shutil, "rmtree")])
def test_ctrl_c_while_the_draft_is_begun_or_cleared_away(
    where: Any, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just after the hidden folder is made; just before it goes, when the new one is in its place."""
    real, calls = getattr(where, call), []

    def interrupted(path: Path, **given: Any) -> None:
        first = path.name.endswith(".tmp") and not calls
        if where is Path or not first:
            real(path, **given)
        if first:
            calls.append(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(where, call, interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "pruned") as draft:
        (draft / "model").write_text("whole")
    left = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))]
    assert calls and left == ([] if where is Path else ["pruned", "pruned/model"])


def test_replaces_only_when_told(pruned: PreTrainedModel, tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    folder.mkdir()
    export(pruned, None, PLAN, folder)  # empty
    (folder / "old").write_text("old")
    with pytest.raises(OptionError, match="not empty; allowed: a new or an empty folder, or any with"):
        export(pruned, None, PLAN, folder)
    with pytest.raises(OptionError, match="is a file"):
        export(pruned, None, PLAN, folder / "old", overwrite=True)
    assert (folder / "old").exists()
    export(pruned, None, PLAN, folder, overwrite=True)
    assert not (folder / "old").exists() and (folder / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]


def test_refuses_a_model_the_plan_was_not_carried_out_on(
    tiny_llava: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="model has 6 decoder layers but the plan keeps 3 of 6"):
        export(tiny_llava(layers=6), None, PLAN, tmp_path / "pruned")
    assert not list(tmp_path.iterdir())


def test_refuses_as_many_layers_that_are_not_the_plans(
    tiny_llava: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    model = tiny_llava(layers=6)
    with (
        delete_layers(model, [1, 2, 3]),
        pytest.raises(InputError, match=r"has layers 0\+4-5 of 6 but .* 0\+3"),
    ):
        export(model, None, PLAN, tmp_path / "pruned")
    assert not list(tmp_path.iterdir())
    delete_layers(model, [4])
    delete_layers(model, [1, 2])  # in two steps it is the plan
    export(model, None, PLAN, tmp_path / "pruned")


def test_mergekit_yaml_keeps_the_same_layers() -> None:
    merge = yaml.safe_load(mergekit_yaml(PLAN, 'a "quoted": path', "float16"))
    assert merge["merge_method"] == "passthrough" and merge["dtype"] == "float16"
    sources = [source for part in merge["slices"] for source in part["sources"]]
    assert {source["model"] for source in sources} == {'a "quoted": path'}
    kept = [layer for source in sources for layer in range(*source["layer_range"])]
    assert tuple(kept) == PLAN.kept


def card(plan: PruningPlan = PLAN, **more: Any) -> str:
    return model_card(plan, model_class="LlavaForConditionalGeneration", parameters=1234567, **more)


def test_the_card_tells_plan_figures_and_provenance() -> None:
    text = card(figures={"MME": {"dense": 1500, "pruned": 1400.123456, "kept": "93 %"}, "GQA": {"dense": 62}})
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["base_model"] == "org/dense" and metadata["pipeline_tag"] == "image-text-to-text"
    for line in (
        "# dense without 3 of its 6 layers",
        "| benchmark | dense | pruned | kept |",
        "| MME | 1500 | 1400 | 93 % |",
        "| GQA | 62 |  |  |",
        "| deleted | 1-2+4 |",
        "| kept | 0+3+5 |",
        "| parameters after deletion | 1,234,567 |",
        f"| plan | {PLAN.hash} |",
        "| fingerprint of the dense model | 0123456789abcdef |",
        "| calibration source | embedded |",
        "| torch | 2.6 |",
        "model = LlavaForConditionalGeneration.from_pretrained(",
    ):
        assert line in text, line
    assert "2410.11042" in text


def test_the_card_escapes_what_came_from_outside() -> None:
    text = card(replace(PLAN, model="org/x\n# Buy"), figures={"A|B\n<img src=x>": {"pruned": 1}})
    assert "\n# Buy" not in text and "<img" not in text.split("---", 2)[2]
    assert r"| A\|B &lt;img src=x> | 1 |" in text


def test_the_card_credits_only_the_method_that_was_used() -> None:
    text = card(replace(PLAN, criterion="random"), source="/home/me/models/dense", multimodal=False)
    assert "2410.11042" not in text and "Figures" not in text
    assert "## Method" not in card(replace(PLAN, criterion="reverse:topology"))
    combined = card(replace(PLAN, criterion="topology_angle_influence"))
    assert all(paper in combined for paper in ("2410.11042", "2403.17887", "2403.03853"))
    assert all("2410.11042" in card(replace(PLAN, criterion=name)) for name in ("gardinazzi", "topovlm"))
    metadata = yaml.safe_load(text.split("---")[1])
    assert "base_model" not in metadata and metadata["pipeline_tag"] == "text-generation"


def test_the_card_carries_the_evaluation_in_the_hubs_format(tmp_path: Path) -> None:
    dense = tmp_path / "README.md"
    dense.write_text("---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n# Dense\n")
    figures = {
        "MME": {"dense": 1500, "pruned": 1400.5, "dataset": "lmms-lab/MME", "metric": "mme_perception"},
        "GQA": 61.5,
        "POPE": {"dense": 86},  # nothing about the pruned model
    }
    data = ModelCard(card(figures=figures, dense_card=dense)).data
    assert (data.base_model, data.base_model_relation) == ("org/dense", "finetune")
    assert (data.license, data.license_name, data.license_link) == ("other", "own", "LICENSE")
    found = [(r.dataset_name, r.dataset_type, r.metric_type, r.metric_value) for r in data.eval_results]
    assert found == [
        ("MME", "lmms-lab/MME", "mme_perception", 1400.5),
        ("GQA", "gqa", "score", 61.5),
    ]
    assert ModelCard(card()).data.license is None and not ModelCard(card()).data.eval_results


def test_figures_of_the_hubs_benchmarks_are_eval_results() -> None:
    figures = {
        "MME / p": {"pruned": 1400.5, "dataset": "lmms-lab/MME", "task": "perception"},
        "POPE": {"value": 86, "dataset": "lmms-lab/POPE"},
        "ours": 61.5,  # no data set of the hub
        "GQA": {"dense": 62, "dataset": "lmms-lab/GQA"},  # nothing about the pruned model
    }
    found = hub_results(PLAN, figures)
    assert sorted(found) == ["mme-p.yaml", "pope.yaml"]
    entries = [entry for text in found.values() for entry in parse_eval_result_entries(yaml.safe_load(text))]
    told = [(entry.dataset_id, entry.task_id, entry.value) for entry in entries]
    assert told == [("lmms-lab/MME", "perception", 1400.5), ("lmms-lab/POPE", "default", 86)]
    assert all("without decoder layers 1-2+4" in entry.notes for entry in entries)
