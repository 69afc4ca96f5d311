"""Hidden states on disk: the same to the last bit, for every criterion, and whole or refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from families import properties as holds
from families.table import FAMILIES
from safetensors import safe_open
from safetensors.torch import save_file

from lmms_topoprune import registry
from lmms_topoprune._util import files
from lmms_topoprune._util.disk_cache import Cache
from lmms_topoprune.calibration.calibration_set import CalibrationSet
from lmms_topoprune.calibration.collect import collect
from lmms_topoprune.calibration.decoder import has_norms
from lmms_topoprune.calibration.sources import load_samples
from lmms_topoprune.calibration.states_file import SavedStates
from lmms_topoprune.errors import InputError
from lmms_topoprune.options import PruningOptions
from lmms_topoprune.pipeline import Planner, calibrate, make_plan


def wanted(*criteria, **options):
    given = {"samples": 16, "sparsity": 0.4, **options}
    return [PruningOptions(criterion=name, **given) for name in criteria]


@pytest.fixture
def model(tiny_llava):
    return tiny_llava()


@pytest.fixture
def planner(model, embedded_processor, tmp_path):
    """Makes planners that know nothing but the folder of states."""

    def make(model=model, folder="states"):
        return Planner("tiny", model, embedded_processor, cache=Cache(None), states=tmp_path / folder)

    return make


@pytest.fixture
def file(planner, tmp_path):
    planner().plans(wanted("cosine"))
    (found,) = (tmp_path / "states").iterdir()
    return found


def no_pass(monkeypatch):
    monkeypatch.setattr(calibrate, "collect_views", lambda *_, **__: pytest.fail("calibrated again"))


def test_one_pass_is_enough_for_every_criterion(planner, model, embedded_processor, monkeypatch, tmp_path):
    few = {"samples": 8, "k": "5"}
    first = planner()
    first.plans(wanted("cosine", samples=8))
    first.plans(wanted("cosine", token="mean", samples=8) + wanted("topovlm", **few))  # ret: its own pass
    first.plans(wanted("unions", **few))  # a cloud of tokens
    assert first.passes == 4 and len(list((tmp_path / "states").iterdir())) == 4
    names = [name for name in registry.criteria() if name != "dense"]
    every = wanted(*names, **few) + wanted("reverse:gardinazzi", "topology", samples=8, k="3")
    alone = [
        make_plan(model, embedded_processor, o, name="tiny", progress=False, cache=Cache(None)) for o in every
    ]
    no_pass(monkeypatch)
    again = planner()
    for plan, expected in zip(again.plans(every), alone, strict=True):
        assert plan.hash == expected.hash and plan.scores == expected.scores, plan.criterion
    assert again.passes == 0


def test_criteria_of_several_tokens_share_one_pass(planner, model, embedded_processor, tmp_path):
    """Whether or not the states of one of them are on the disk already."""
    every = wanted("cosine", "topology_angle_influence", "gardinazzi", k="5") + wanted(
        "cosine", token="mean_image", state="norm"
    )
    alone = [
        make_plan(model, embedded_processor, o, name="tiny", progress=False, cache=Cache(None)) for o in every
    ]
    for planned_before in ([], wanted("cosine")):
        made = planner(folder=f"states{len(planned_before)}")
        made.plans(planned_before)
        for plan, expected in zip(made.plans(every), alone, strict=True):
            assert plan.hash == expected.hash and plan.scores == expected.scores, plan.criterion
        assert made.passes == len(planned_before) + 1
        assert len({made.states_file(options) for options in every}) == 3
        assert all(made.states_file(options).exists() for options in every)


def test_one_pass_is_not_asked_for_what_it_cannot_give(model, embedded_processor):
    for more in ({"seed": 1}, {"samples": 17}, {"token": "ret"}):
        readings = [calibrate.Reading(o, ("cosine",)) for o in wanted("cosine") + wanted("cosine", **more)]
        with pytest.raises(ValueError, match="different samples or prompts"):
            calibrate.calibrate(model, embedded_processor, CalibrationSet([]), readings)


def test_a_pass_that_was_paid_for_is_kept_if_scoring_fails(planner, monkeypatch, tmp_path):
    monkeypatch.setattr("lmms_topoprune.pipeline.scorer.score", lambda *_: pytest.fail("no score"))
    with pytest.raises(pytest.fail.Exception):
        planner().plans(wanted("cosine") + wanted("cosine", token="mean"))
    assert len(list((tmp_path / "states").iterdir())) == 2


def test_a_file_holds_what_its_name_says(planner, tmp_path):
    """Whatever else the pass was for."""
    norm = wanted("cosine", state="norm")
    for number, others in enumerate(([], wanted("cosine"))):
        made = planner(folder=f"states{number}")
        made.plans(norm + others)
        assert list(SavedStates.load(made.states_file(norm[0])).states) == ["norm"]


def test_a_plan_from_kept_states_says_what_the_pass_took(planner, file):
    cost = json.loads(safe_open(file, "pt").metadata()["cost"])
    (plan,) = planner().plans(wanted("topology"))
    assert plan.stages["calibrate"] == cost and cost["seconds"] > 0


def test_cached_scores_do_not_keep_states_from_being_written(model, embedded_processor, tmp_path):
    cache = Cache(tmp_path / "cache")
    Planner("tiny", model, embedded_processor, cache=cache).plans(wanted("cosine"))
    late = Planner("tiny", model, embedded_processor, cache=cache, states=tmp_path / "states")
    late.plans(wanted("cosine", "last_n"))
    assert late.passes == 1
    assert late.states_file(wanted("cosine")[0]).exists()
    assert late.states_file(wanted("last_n")[0]) is None and late.states_file(wanted("taylor")[0]) is None


def test_other_calibrations_and_models_have_files_of_their_own(planner, tiny_llava, tmp_path):
    for options in ({}, {"seed": 1}, {"samples": 17}, {"token": "mean"}, {"state": "norm"}):
        planner().plans(wanted("cosine", **options))
    planner(tiny_llava(seed=1)).plans(wanted("cosine"))
    assert len(list((tmp_path / "states").iterdir())) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_anyone_can_read_the_file(planner, model, tmp_path, dtype):
    made = planner(model.to(dtype))
    made.plans(wanted("cosine"))
    (path,) = (tmp_path / "states").iterdir()
    with safe_open(path, "pt") as file:
        about = {name: json.loads(value) for name, value in file.metadata().items()}
        assert file.get_tensor("state.residual").shape == (7, 16, 32)
        assert file.get_tensor("state.norm").dtype == dtype
        sums = {name: file.get_tensor(f"sum.{name}") for name in ("token_cosine", "relative_magnitude")}
        assert all(value.shape == (6,) and value.dtype == torch.float64 for value in sums.values())
    assert (about["model"], about["fingerprint"], about["layers"]) == ("tiny", made.fingerprint, 6)
    assert about["calibration"]["samples"] == 16 and about["calibration"]["state"] == "norm+residual"
    kept = SavedStates.load(path)
    assert kept.file == path.name
    live = collect(made.model, made.processor, load_samples("embedded", 16, 0)).states()
    assert torch.equal(kept.states["residual"].values, live["residual"].values)


def test_a_family_without_such_norms_keeps_the_rest(embedded_processor):
    bare = holds.build(FAMILIES["cohere2_vision"], "eager")
    assert not has_norms(bare) and has_norms(holds.build(FAMILIES["llava_llama"], "eager"))
    found = Planner("bare", bare, embedded_processor, states=Path("x")).scorer._all_criteria(
        wanted("cosine")[0]
    )
    assert {"cosine", "topology", "block_influence"} <= set(found) and "gardinazzi" not in found


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, foreign, empty])
def test_a_damaged_file_is_named(planner, file, damage):
    damage(file)
    with pytest.raises(InputError, match="cannot be read") as caught:
        planner().plans(wanted("topology"))
    assert file.name in str(caught.value) and "delete the file" in str(caught.value)
    assert "\n" not in str(caught.value)
    file.unlink()
    assert planner().plans(wanted("topology")) and SavedStates.load(file)


@pytest.mark.parametrize("told", [{"cost": "x"}, {"cost": {"seconds": [1]}}, {"calibration": 3}])
def test_what_a_file_says_of_itself_is_checked(file, told):
    """The digest is of the numbers."""
    with safe_open(file, "pt") as stored:
        about = {**stored.metadata(), **{name: json.dumps(value) for name, value in told.items()}}
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    save_file(tensors, file, metadata=about)
    with pytest.raises(InputError, match="cannot be read"):
        SavedStates.load(file)


def test_a_full_disk(planner, monkeypatch, tmp_path):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot be written to .*: No space left on device"):
        planner().plans(wanted("cosine"))
