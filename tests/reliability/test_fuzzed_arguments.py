"""model_args strings of all kinds end in one sentence or in a run."""

from __future__ import annotations

import pytest
from strings import flaw_of, nothing_loaded, tally

from lmms_topoprune.errors import OptionError
from lmms_topoprune.harness import arguments
from lmms_topoprune.harness.arguments import parse

pytestmark = pytest.mark.slow


def test_a_thousand_strings_end_in_a_sentence_or_would_run(scene):
    with nothing_loaded():
        found = tally(scene("strings"), 1000, seed=0)
    assert found.wrong == []
    assert found.counts["run"] > 200 and found.counts["sentence"] > 400


def test_some_strings_are_run_to_the_end(scene):
    found = tally(scene("strings"), 40, seed=1)
    assert found.wrong == []
    assert found.counts["run"] >= 5


def test_the_test_can_fail(scene, monkeypatch):
    """lmms-eval's own parser and no checks of types: the fuzzer finds errors of other libraries."""
    from lmms_eval.utils import simple_parse_args_string

    monkeypatch.setattr(arguments, "parse", simple_parse_args_string)
    with nothing_loaded():
        assert tally(scene("strings"), 300, seed=0).wrong
    assert flaw_of("it is\nbroken", "k=1") and flaw_of("something went wrong", "k=1")
    assert not flaw_of("k is 1; allowed: more", "k=1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("k=5,k=10", "k is given twice in model_args; allowed: once"),
        ("k=²", "k is '²', which cannot be read as a number"),
        ("samples=" + "9" * 5000, "samples is '999.*999', which cannot be read as a number"),
        ("k=5,sparsity", "model_args holds 'sparsity'; allowed: name=value pairs joined by commas"),
    ],
)
def test_what_lmms_eval_stumbles_over_is_named(text, sentence):
    with pytest.raises(OptionError, match=sentence):
        parse(text)


def test_quotes_and_braces_hold_a_value_together():
    assert parse('pretrained=x,chat_template="a,b=c",k=5,') == {
        "pretrained": "x",
        "chat_template": '"a,b=c"',
        "k": 5,
    }
    assert parse("") == {}
