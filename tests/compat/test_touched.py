"""What is touched of other libraries is there, and patches end with their block."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from lmms_topoprune.compat.touched import TOUCHED, Touched, replaced
from lmms_topoprune.compat.videos import video_readers_optional


@pytest.mark.parametrize("touched", TOUCHED, ids=lambda touched: f"{touched.where}.{touched.name}")
def test_what_is_touched_is_there(touched: Touched) -> None:
    with video_readers_optional():  # wrappers of lmms-eval import them
        assert touched.problem() is None


@pytest.mark.parametrize(
    ("where", "name", "sentence"),
    [
        ("json", "nothing", "json has no nothing (made for json 2); nobody laughs"),
        ("json:Nothing", "x", "json:Nothing is gone (made for json 2); nobody laughs"),
        ("no_such_module", "x", "no_such_module is gone (made for json 2); nobody laughs"),
        (
            "json:JSONEncoder",
            "nothing",
            "json:JSONEncoder has no nothing (made for json 2); nobody laughs",
        ),
    ],
)
def test_what_is_gone_is_a_sentence(where: str, name: str, sentence: str) -> None:
    assert Touched(where, name, "json 2", "nobody laughs").problem() == sentence


def test_an_attribute_that_only_instances_have_is_found() -> None:
    assert Touched("json:JSONEncoder", "skipkeys", "json 2", "").problem() is None


def test_a_patch_ends_with_its_block() -> None:
    owner: Any = SimpleNamespace(old=1)
    with pytest.raises(KeyError), replaced(owner, old=2, new=3):
        assert (owner.old, owner.new) == (2, 3)
        raise KeyError
    assert vars(owner) == {"old": 1}


def test_an_inherited_attribute_is_inherited_again() -> None:
    class Parent:
        value = 1

    class Child(Parent):
        pass

    with replaced(Child, value=2):
        assert Child.value == 2 and Parent.value == 1
    assert "value" not in vars(Child) and Child.value == 1


def test_a_request_of_lmms_eval_has_six_arguments() -> None:
    """(context, doc_to_visual or doc_to_messages, settings, document, task, split)."""
    from lmms_eval.api.task import ConfigurableMessagesTask, ConfigurableTask

    for task in (ConfigurableTask, ConfigurableMessagesTask):
        source = inspect.getsource(task.construct_requests)
        assert "generation_kwargs" in source and "doc_id, self.config.task, split" in source
