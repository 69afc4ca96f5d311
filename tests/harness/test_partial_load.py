"""A plan that is known before loading: no calibration, no dropped weight is read, equal answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import modeling_utils

from lmms_topoprune._util.disk_cache import Cache, listing
from lmms_topoprune.pipeline import Planner, calibrate

FEW = {"samples": 8, "k": "3", "calibration_batch": 8}
PRUNE = {"sparsity": 0.34, "criterion": "topology", **FEW}


safe_open = modeling_utils.safe_open


class Reads:
    """safe_open that notes whose bytes are asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def open(self, *arguments: Any, **options: Any) -> Any:
        return _File(safe_open(*arguments, **options), self.names)


class _File:
    def __init__(self, file: Any, names: set[str]) -> None:
        self._file, self._names = file, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def get_tensor(self, name: str) -> torch.Tensor:
        self._names.add(name)
        return self._file.get_tensor(name)

    def get_slice(self, name: str) -> Any:
        return _Slice(self._file.get_slice(name), name, self._names)


class _Slice:
    def __init__(self, part: Any, name: str, names: set[str]) -> None:
        self._part, self._name, self._names = part, name, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __getitem__(self, index: Any) -> torch.Tensor:
        self._names.add(self._name)
        return self._part[index]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    found = Reads()
    monkeypatch.setattr(modeling_utils, "safe_open", found.open)
    yield found


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each calibration pass."""
    found: list[int] = []
    collect = calibrate.collect_views
    monkeypatch.setattr(calibrate, "collect_views", lambda *a, **k: found.append(1) or collect(*a, **k))
    return found


def dropped_reads(names: set[str], dropped: tuple[int, ...]) -> set[str]:
    return {name for name in names for layer in dropped if f"language_model.model.layers.{layer}." in name}


def test_a_second_run_reads_no_dropped_weight(load, asked, reads, passes):
    first = load("topopruned_llava", **PRUNE)
    assert first.partial_load.plan is None and passes == [1]
    assert dropped_reads(reads.names, first.plan.dropped)  # the dense model was loaded
    reads.names.clear()
    second = load("topopruned_llava", **PRUNE)
    assert second.partial_load.plan is not None and passes == [1]
    assert (second.plan.hash, second.plan.scores) == (first.plan.hash, first.plan.scores)
    assert second.plan.calibration == first.plan.calibration
    assert len(second.plan.dropped) == 2 and not dropped_reads(reads.names, second.plan.dropped)
    assert dropped_reads(reads.names, second.plan.kept)
    requests = asked.requests("chat")
    assert asked.ask(second, requests) == asked.ask(first, requests)
    assert second.network.config.to_dict() == first.network.config.to_dict()
    assert "calibrate (cached)" in second.plan.stages


def test_other_sparsities_and_rules_load_lean_from_the_same_scores(load, passes):
    load("topopruned_llava", **PRUNE)
    for changes in ({"sparsity": 0.5}, {"selection": "block"}, {"batch_size": 4}):
        assert load("topopruned_llava", **{**PRUNE, **changes}).partial_load.plan is not None
    assert passes == [1]
    for changes in ({"seed": 1}, {"samples": 9}, {"token": "ret"}, {"k": "4"}, {"dtype": "bfloat16"}):
        assert load("topopruned_llava", **{**PRUNE, **changes}).partial_load.plan is None
    assert len(passes) == 6


def test_what_trials_settled_loads_lean_the_second_time(load, passes):
    given = {**FEW, "criterion": "block_influence", "drop": 2, "trials": 2, "point_count": 16}
    first, second = (load("topopruned_llava", **given) for _ in range(2))
    assert first.partial_load.plan is None and second.partial_load.plan is not None and passes == [1]
    assert second.plan.hash == first.plan.hash and len(second.plan.dropped) == 2
    assert second.plan.trials == first.plan.trials and len(second.plan.trials) == 2


@pytest.mark.parametrize("given", [{"layers": "1-2+4"}, {"criterion": "random", "sparsity": 0.34}])
def test_what_needs_no_calibration_loads_lean_at_once(load, reads, monkeypatch, given):
    model = load("topopruned_llava", **given)
    assert model.partial_load.plan is not None
    monkeypatch.setattr("lmms_topoprune.pipeline.planner.known_plan", lambda *_, **__: None)
    dense = load("topopruned_llava", **given)
    assert dense.partial_load.plan is None and dense.plan.hash == model.plan.hash
    monkeypatch.undo()
    assert load("topopruned_llava", **given).plan.hash == model.plan.hash


def test_a_plan_file_loads_lean_and_another_models_is_refused(load, save_llava, asked, tmp_path):
    path = tmp_path / "plan.json"
    dense = load("topopruned_llava", **PRUNE)
    dense.plan.save(path)
    lean = load("topopruned_llava", plan=str(path))
    assert lean.partial_load.plan is not None and lean.plan.hash == dense.plan.hash
    requests = asked.requests("chat")
    assert asked.ask(lean, requests) == asked.ask(dense, requests)
    with pytest.raises(Exception, match=r"was made for .* with fingerprint"):
        load("topopruned_llava", plan=str(path), pretrained=str(save_llava(tmp_path / "other", seed=5)))


def test_a_tuned_copy_is_calibrated_anew(load, folder, tmp_path, passes):
    """Same name, sizes and shapes, and even the same times of the files."""
    place = shutil.copytree(folder, tmp_path / "model")
    load("topopruned_llava", pretrained=str(place), **PRUNE)
    (file,) = place.glob("*.safetensors")
    times, weights = file.stat(), load_file(file)
    for name in weights:
        if "language_model.model.layers.3." in name:
            weights[name] = weights[name] * 1.01
    save_file(weights, file, metadata={"format": "pt"})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_size == times.st_size
    tuned = load("topopruned_llava", pretrained=str(place), **PRUNE)
    assert tuned.partial_load.plan is None and passes == [1, 1]


def test_weights_that_change_while_they_are_calibrated_are_not_remembered(
    load, folder, save_llava, tmp_path, monkeypatch, passes
):
    """A training puts its next checkpoint in place of the one in memory."""
    place = shutil.copytree(folder, tmp_path / "model")
    newer = save_llava(tmp_path / "newer", seed=5)
    with monkeypatch.context() as patch:
        make_plan = Planner.plan

        def saved_meanwhile(*arguments: Any, **given: Any) -> Any:
            plan = make_plan(*arguments, **given)
            (newer / "model.safetensors").replace(place / "model.safetensors")
            return plan

        patch.setattr(Planner, "plan", saved_meanwhile)
        before = load("topopruned_llava", pretrained=str(place), **PRUNE)
    after = load("topopruned_llava", pretrained=str(place), **PRUNE)
    assert after.partial_load.plan is None and passes == [1, 1]
    assert after.plan.fingerprint != before.plan.fingerprint


def test_a_changed_template_is_calibrated_anew(load, folder, tmp_path, passes):
    place = shutil.copytree(folder, tmp_path / "model")
    load("topopruned_llava", pretrained=str(place), **PRUNE)
    template = place / "chat_template.jinja"
    template.write_text("Look. " + template.read_text())
    assert load("topopruned_llava", pretrained=str(place), **PRUNE).partial_load.plan is None and passes == [
        1,
        1,
    ]


def test_other_samples_under_the_same_name_are_calibrated_anew(load, tmp_path, passes):
    lines = tmp_path / "samples.jsonl"
    for number, word in enumerate(("red", "red", "blue")):
        lines.write_text("\n".join(f'{{"instruction": "Is it {word}? {i}"}}' for i in range(8)))
        model = load("topopruned_llava", calibration=str(lines), **PRUNE)
        assert (model.partial_load.plan is not None) == (number == 1)
    assert passes == [1, 1]


@pytest.mark.parametrize("damage", ["{", '{"schema": "other/1"}', ""])
def test_damaged_entries_are_set_aside_and_computed_again(load, passes, damage, caplog):
    first = load("topopruned_llava", **PRUNE)
    for path in Cache.default().entries():
        path.write_text(damage)
    second = load("topopruned_llava", **PRUNE)
    assert second.partial_load.plan is None and passes == [1, 1] and second.plan.hash == first.plan.hash
    assert "set aside" in caplog.text
    assert load("topopruned_llava", **PRUNE).partial_load.plan is not None
    assert {entry.kind for entry in listing(Cache.default())} >= {"scores", "set aside"}


@pytest.mark.parametrize(
    "device_map", ["auto", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}], ids=["auto", "all", "parts"]
)
def test_device_maps_apply_to_the_lean_model(load, asked, device_map):
    given = {**PRUNE, "device_map": device_map, "device": "cpu"}
    first, second = load("topopruned_llava", **given), load("topopruned_llava", **given)
    assert first.partial_load.plan is None and second.partial_load.plan is not None
    requests = asked.requests("chat")
    assert asked.ask(second, requests) == asked.ask(first, requests)
