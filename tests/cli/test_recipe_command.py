"""`topoprune sweep recipe.yaml` from end to end, in lmms-eval itself, on a tiny model."""

from __future__ import annotations

import json

import pytest
import yaml

from lmms_topoprune.sweep.recipe import RECIPE


@pytest.mark.slow
def test_a_sweep_by_recipe_keeps_the_recipe_that_repeats_it(topoprune, model_folder, tmp_path):
    text = f"""
models: {{pretrained: {model_folder}}}
criteria: [random, last_n]
sparsities: [0.34]
tasks: topoprune_yesno
limit: 4
batch_size: 4
"""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    first, again = tmp_path / "first", tmp_path / "again"
    code, out, err = topoprune("sweep", path, "--criteria", "last_n", "-o", first, "--json")
    assert code == 0, err
    told = yaml.safe_load((first / RECIPE).read_text())
    assert told["criteria"] == ["last_n"], "the command line counts"
    assert told["models"] == [{"model": "dense_llava", "pretrained": str(model_folder)}]
    code, out_again, err = topoprune("sweep", first / RECIPE, "-o", again, "--json")
    assert code == 0, err
    rows = [[(r["label"], r["overall"]) for r in json.loads(text)["rows"]] for text in (out, out_again)]
    assert rows[0] == rows[1] and len(rows[0]) == 2
