"""What a sweep sends elsewhere, without a network: wandb's offline runs, and a hub that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmms_topoprune.errors import MissingExtraError, OptionError, UnreachableError
from lmms_topoprune.harness.publish import Publisher

RESULTS = {
    "results": {"tiny": {"alias": "tiny", "score,none": 0.5, "score_stderr,none": 0.1}},
    "configs": {"tiny": {"task": "tiny"}},
    "versions": {"tiny": 1},
    "n-shot": {"tiny": 0},
    "config": {"model": "dense_llava", "model_args": "pretrained=embedded"},
}
ROW = {"doc_id": 0, "doc_hash": "a", "input": "Is it?", "filtered_resps": "yes", "target": "no"}
SAMPLES = {"tiny": [ROW]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RESULTS))
    return path


@pytest.mark.slow
def test_wandb_offline_keeps_one_run_an_evaluation(file, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    publisher = Publisher(wandb_args=f"project=pruning,mode=offline,dir={tmp_path}")
    publisher.check()
    for name in ("dense", "cosine 30 %"):
        publisher.publish(file, name, SAMPLES)
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


def test_the_hub_gets_results_and_samples(file, monkeypatch):
    pushed: list[str] = []

    class Hub:
        def __init__(self, token: str) -> None:
            assert token == "secret"

        def create_repo(self, **given: object) -> None: ...
        def upload_file(self, path_in_repo: str, **given: object) -> None:
            pushed.append(path_in_repo)

        def upload_folder(self, folder_path: str, **given: object) -> None:
            (file,) = Path(folder_path).glob("*_samples_tiny.jsonl")
            pushed.append(file.name)
            assert json.loads(file.read_text()) == ROW, "as it was saved"

    monkeypatch.setattr("lmms_eval.loggers.evaluation_tracker.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "secret")
    publisher = Publisher(
        hf_hub_log_args="hub_results_org=me,push_results_to_hub=True,push_samples_to_hub=True"
    )
    publisher.check()
    publisher.publish(file, "dense", SAMPLES)
    assert [name.rpartition("_")[2] for name in pushed] == ["results.json", "tiny.jsonl"]


def test_a_hub_that_takes_nothing_is_an_error(file, monkeypatch):
    class Hub:
        def __init__(self, token: str) -> None: ...
        def create_repo(self, **given: object) -> None:
            raise OSError("offline")

    monkeypatch.setattr("lmms_eval.loggers.evaluation_tracker.HfApi", Hub)
    publisher = Publisher(hf_hub_log_args="hub_results_org=me,push_results_to_hub=True,token=x")
    with pytest.raises(UnreachableError, match="could not be pushed"):
        publisher.publish(file, "dense", SAMPLES)


def test_what_cannot_be_sent_is_found_before_the_sweep(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(OptionError, match=r"hf_hub_log_args is 'push_results_to_hub=True': .*token"):
        Publisher(hf_hub_log_args="push_results_to_hub=True").check()
    with pytest.raises(OptionError, match="hf_hub_log_args is 'pushh=1'"):
        Publisher(hf_hub_log_args="pushh=1").check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        Publisher(wandb_args="project=x").check()
