"""Runs of lmms-eval without this plugin's record, beside runs with it."""

from __future__ import annotations

import json

import folders
import pytest

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.errors import InputError
from lmms_topoprune.results.reading import read_run

SCORES = {"vqa": folders.exact([1.0, 0.0] * 5)}
RECORD = {"dtype": "torch.bfloat16", "attn_implementation": "sdpa", "versions": {"lmms-eval": "0.7.3"}}


@pytest.fixture
def pruned(tmp_path):
    return read_run(folders.write(tmp_path / "pruned", SCORES, folders.plan(), record=RECORD))


def plain(folder, more=""):
    path = folders.write(folder / "plain", SCORES, model="llava_hf", model_args=f"pretrained=tiny{more}")
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "lmms_eval_version": "unknown@unknown"}))
    return read_run(path)


def test_what_a_plain_run_cannot_tell_is_named_and_not_held_against_it(tmp_path, pruned):
    (note,) = compare([plain(tmp_path), pruned]).notes
    assert note == (
        "Not every run tells its attn_implementation, dtype, lmms-eval version, weights, which may differ."
    )
    assert "dtype" in compare([plain(tmp_path, ",dtype=auto"), pruned]).notes[0]


def test_the_precision_that_a_plain_run_was_asked_for_counts(tmp_path, pruned):
    (note,) = compare([plain(tmp_path, ",dtype=bfloat16,attn_implementation=sdpa"), pruned]).notes
    assert note == "Not every run tells its lmms-eval version, weights, which may differ."
    with pytest.raises(InputError, match=r"differ in dtype \(torch.float16 and torch.bfloat16\) \(compare"):
        compare([plain(tmp_path, ",dtype=float16"), pruned])
    with pytest.raises(InputError, match=r"attn_implementation \(eager and sdpa\)"):
        compare([plain(tmp_path, ",attn_implementation=eager"), pruned])


def test_what_comes_out_counts_and_not_whether_it_was_written_down(tmp_path, pruned):
    named = {"model_args": "pretrained=tiny,dtype=bfloat16", "record": RECORD}
    dense = folders.write(tmp_path / "dense", SCORES, folders.plan((), "dense"), **named)
    assert compare([read_run(dense), pruned]).notes == ()
