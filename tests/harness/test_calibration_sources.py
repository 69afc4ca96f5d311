"""Calibration sources through lmms-eval's command: never what is evaluated, broken rows, unreachable data."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import wrapped
from lmms_eval import __main__ as command
from lmms_eval.tasks import TaskManager

from lmms_topoprune.harness.session import Session
from lmms_topoprune.harness.task_samples import Documents
from lmms_topoprune.plan import PruningPlan

FEW = "sparsity=0.34,samples=8,k=3,self_test=False"
OTHER = """
task: {name}
dataset_path: {dataset}
{files}
training_split: train
test_split: test
output_type: generate_until
doc_to_visual: !function hooks.visuals
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
"""


@pytest.fixture
def run(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`lmms-eval` in this process on four questions, without the two thousand tasks of lmms-eval."""
    monkeypatch.setattr(command, "TaskManager", functools.partial(TaskManager, include_defaults=False))

    def evaluate(model: str, model_args: str, *more: str) -> None:
        given = ["--model", model, "--model_args", model_args, "--tasks", "tiny_questions", "--limit", "4"]
        monkeypatch.setattr(sys, "argv", ["lmms-eval", *given, "--include_path", str(tasks), *more])
        command.cli_evaluate()

    return evaluate


@pytest.fixture
def others(tasks: Path) -> None:
    """Tasks beside tiny_questions: its documents under another name, more of them, broken and remote ones."""
    rows = [json.loads(line) for line in (tasks / "rows.jsonl").read_text().splitlines()]
    (tasks / "more.jsonl").write_text("\n".join(json.dumps(row) for row in rows * 2))
    broken = [{**row, "image": "nowhere.png"} if index == 3 else row for index, row in enumerate(rows * 2)]
    (tasks / "broken.jsonl").write_text("\n".join(map(json.dumps, broken)))
    for name, training in (("same_questions", "more"), ("broken_questions", "broken")):
        splits = f"train: {tasks / training}.jsonl, test: {tasks / 'rows.jsonl'}"
        files = f"dataset_kwargs: {{data_files: {{{splits}}}}}"
        (tasks / f"{name}.yaml").write_text(OTHER.format(name=name, dataset="json", files=files))
    remote = OTHER.format(name="remote_questions", dataset="nobody/nothing-at-all", files="")
    (tasks / "remote_questions.yaml").write_text(remote)


def sentence(caught: Any) -> str:
    text = str(caught.value.code)
    assert text.startswith("lmms-topoprune: ") and "\n" not in text
    return text


@pytest.mark.parametrize(
    "source",
    ["task:tiny_questions", "task:tiny_questions:test", "task:same_questions:test"],
)
def test_what_is_evaluated_is_refused(run, folder, others, source):
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"pretrained={folder},{FEW},calibration={source}")
    assert "which task 'tiny_questions' is evaluated on; pass another split" in sentence(caught)


HUB = {"dataset_path": "lmms-lab/POPE"}
FILES = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"train": "a", "test": "a", "more": "b"}}}


@pytest.mark.parametrize(
    ("source", "config", "same"),
    [
        ("lmms-lab/POPE:test", HUB, True),
        ("LMMs-Lab/pope:test", HUB, True),  # the hub ignores case
        ("lmms-lab/POPE@default:test", HUB, True),
        ("lmms-lab/POPE:test", {**HUB, "dataset_name": "Full"}, True),  # perhaps the only configuration
        ("lmms-lab/POPE:test", {**HUB, "dataset_kwargs": {"data_files": "part.parquet"}}, True),
        ("lmms-lab/POPE@en:test", {**HUB, "dataset_name": "cn"}, False),
        ("lmms-lab/POPE:train", HUB, False),
        ("lmms-lab/POPE-2:test", HUB, False),
    ],
)
def test_names_of_the_same_documents(source, config, same):
    assert Documents.of_hub(source).overlap(Documents.of_task(config, "test")) is same


@pytest.mark.parametrize(
    ("one", "other", "same"), [("train", "test", True), ("more", "test", False), ("t[:9]", "t[9:]", False)]
)
def test_one_file_may_be_two_splits(one, other, same):
    assert Documents.of_task(FILES, one).overlap(Documents.of_task(FILES, other)) is same


def test_a_session_knows_what_its_tasks_ask_about(tasks, others):
    session = Session(None, "dense_llava", "", 1, tasks)
    for source in ("task:tiny_questions", "task:same_questions:test"):
        assert session.asked_about(source, ["tiny_questions"]) == ("tiny_questions",)
    for source in ("task:same_questions", "hf:somebody/else:test", "embedded"):
        assert session.asked_about(source, ["tiny_questions"]) == ()


def test_if_it_is_forced_the_plan_says_so(run, folder, others, tmp_path):
    arguments = f"pretrained={folder},{FEW},calibration=task:tiny_questions:test,calibration_forced=True"
    run("topopruned_llava", arguments, "--output_path", str(tmp_path))
    (path,) = tmp_path.rglob("*_plan.json")
    assert PruningPlan.load(path).calibration["evaluated"] == ["tiny_questions"]
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"pretrained={folder},self_test=False,plan={path}")
    assert "which task 'tiny_questions' is evaluated on" in sentence(caught)


def test_a_plan_whose_repair_was_fitted_to_what_is_evaluated_is_refused(run, folder, others, tmp_path):
    facts = {"method": "rescale", "version": 2, "ridge": 0.0, "samples": 8, "seed": 0, "fingerprint": "f"}
    facts |= {"source": "task:tiny_questions:test"}
    PruningPlan("m", "f", 6, (2,), "given", repair=facts).save(tmp_path / "plan.json")
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"pretrained={folder},plan={tmp_path / 'plan.json'}")
    assert "which task 'tiny_questions' is evaluated on" in sentence(caught)


def test_another_split_is_allowed(run, folder, others, tmp_path):
    source = "calibration=task:same_questions"
    run("topopruned_llava", f"pretrained={folder},{FEW},{source}", "--output_path", str(tmp_path))
    (path,) = tmp_path.rglob("*_plan.json")
    plan = PruningPlan.load(path)
    assert plan.calibration["source"] == "task:same_questions" and "evaluated" not in plan.calibration


def test_broken_documents_of_a_task_are_skipped_unless_strict(run, folder, others, caplog):
    arguments = f"pretrained={folder},{FEW},samples=21,calibration=task:broken_questions"
    arguments = arguments.replace("samples=8,", "")
    run("topopruned_llava", arguments)
    assert "skipped 1 broken calibration samples of task:broken_questions" in caplog.text
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"{arguments},calibration_strict=True")
    assert "document 3: FileNotFoundError" in sentence(caught)


def test_broken_rows_of_a_file_are_skipped_unless_strict(run, folder, tasks, tmp_path, caplog):
    rows = [json.dumps({"instruction": f"What is {i}?", "image": f"{tasks}/{i}.png"}) for i in range(11)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join([*rows, "{"]))
    arguments = f"pretrained={folder},{FEW.replace('samples=8', 'samples=12')},calibration={path}"
    run("topopruned_llava", arguments)
    assert "skipped 1 broken calibration samples" in caplog.text
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"{arguments},calibration_strict=True")
    assert "line 12 of pairs.jsonl is not JSON" in sentence(caught)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:", "calibration is 'hf:'; allowed: hf:NAME[@CONFIG][:SPLIT]"),
        ("hf:nobody/nothing-at-all", "is not on this machine and the Hugging Face hub cannot be reached"),
        ("task:remote_questions", "is not on this machine and the Hugging Face hub cannot be reached"),
        ("task:nothing", "allowed: a single task of lmms-eval"),
    ],
)
def test_offline_it_ends_fast_in_one_sentence(run, folder, others, monkeypatch, source, expected):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start = time.perf_counter()
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"pretrained={folder},{FEW},calibration={source}")
    assert expected in sentence(caught)
    assert time.perf_counter() - start < 8  # lmms-eval's own retries take ten seconds and more


@pytest.mark.parametrize("where", ["embedded", "folder"])
def test_a_revision_of_what_has_none_is_refused(run, folder, where):
    source = folder if where == "folder" else where
    with pytest.raises(SystemExit) as caught:
        run("topopruned_llava", f"pretrained={source},revision=v2,{FEW}")
    assert f"revision is 'v2', but pretrained={source} has none; leave revision out" in sentence(caught)


def test_videos_calibrate_through_the_command(run, tmp_path):
    av = pytest.importorskip("av")
    import numpy as np

    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 56
        for shade in range(16):
            picture = np.full((56, 56, 3), 16 * shade, dtype=np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        film.mux(stream.encode())
    rows = [{"instruction": f"What moves? {i}", "video": "film.mp4"} for i in range(4)]
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = wrapped.save("qwen2_vl", tmp_path / "model")
    given = "max_pixels=3136,min_pixels=784,device=cpu"
    arguments = f"pretrained={model},{given},{FEW},calibration={tmp_path / 'films.jsonl'}"
    run("topopruned_qwen2_vl", arguments, "--output_path", str(tmp_path / "out"))
    (path,) = (tmp_path / "out").rglob("*_plan.json")
    assert PruningPlan.load(path).calibration["samples"] == 4
