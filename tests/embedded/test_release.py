"""The embedded model's folder: what was trained, in bfloat16, with a card that says how."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import TINY
from transformers import LlavaForConditionalGeneration

from lmms_topoprune.errors import InputError
from training.embedded.release import release
from training.embedded.start import Origin
from training.embedded.train import train
from training.loop import finished

pytestmark = pytest.mark.slow


def test_a_finished_run_becomes_a_folder_with_its_card(tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "model"
    with pytest.raises(InputError, match="no finished run"):
        release(run, target, per_cell=1)
    train(TINY, run, steps=3, decay=1, every=1, per_cell=1, say=lambda _: None)
    figures = release(run, target, per_cell=2)
    trained = load_file(finished(run) / "model.safetensors")
    loaded = LlavaForConditionalGeneration.from_pretrained(target, dtype=torch.float32)
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, trained[name].bfloat16().float())
    card = (target / "README.md").read_text()
    assert "for 3 steps" in card and "aligned with the words" in card
    assert f"Overall: {100 * figures['overall']:.1f} %" in card
    assert len(json.loads((finished(run) / "state.json").read_text())["curve"]) == 3


def test_a_start_from_an_earlier_release_is_told(tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    train(TINY, run, steps=2, decay=1, every=1, per_cell=1, say=lambda _: None)
    release(run, tmp_path / "earlier", per_cell=1)
    recipe = replace(TINY, start=(Origin(1), Origin(0, mlp=False)))
    train(
        recipe, again, source=tmp_path / "earlier", steps=2, decay=1, every=1, per_cell=1, say=lambda _: None
    )
    release(again, tmp_path / "model", per_cell=1)
    card = " ".join((tmp_path / "model" / "README.md").read_text().split())
    assert "Of the 2 decoder layers 1 start as one of its layers, 1 as a part of one" in card
