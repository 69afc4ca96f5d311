"""lmms-eval finds the tasks from anywhere and hands both kinds of model the same prompt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from lmms_eval.protocol import ChatMessages
from lmms_eval.tasks import TaskManager, get_task_dict

from lmms_topoprune._util.packaged import shared_path
from training.embedded import build
from training.make_tasks import TASKS

pytestmark = pytest.mark.slow


def load(folder: Path, kind: str) -> dict[str, Any]:
    """Task name -> task of the group, for chat or simple models."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    (tasks,) = get_task_dict(["topoprune"], manager, kind).values()
    return {str(name).removeprefix("topoprune_"): task for name, task in tasks.items()}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks' folder copied to a place that nobody can write to."""
    folder = tmp_path_factory.mktemp("site") / "tasks"
    shutil.copytree(shared_path("tasks"), folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


@pytest.fixture(autouse=True)
def _offline_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_both_paths_give_the_trained_prompt(elsewhere: Path, embedded_processor: Any) -> None:
    chat, simple = load(elsewhere, "chat"), load(elsewhere, "simple")
    assert set(chat) == set(simple) == set(TASKS)
    for name in TASKS:
        for index in (0, 1, 300):
            doc = chat[name].test_docs()[index]
            assert doc == simple[name].test_docs()[index]
            messages = ChatMessages(messages=chat[name].doc_to_messages(doc))
            (image,), _, _ = messages.extract_media()
            text = embedded_processor.apply_chat_template(
                messages.model_dump()["messages"], tokenize=False, add_generation_prompt=True
            )
            content = f"<image>\n{simple[name].doc_to_text(doc)}"
            plain = embedded_processor.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            assert text == plain == build.turn(doc["question"], image=True)
            (visual,) = simple[name].doc_to_visual(doc)
            assert image.tobytes() == visual.tobytes()


def test_every_document_is_there_with_its_answer(elsewhere: Path) -> None:
    for task in load(elsewhere, "simple").values():
        docs = task.test_docs()
        assert 500 <= len(docs) <= 1000
        assert {task.doc_to_target(doc) for doc in docs} == set(docs["answer"])
        scored = task.process_results(docs[0], [docs[0]["answer"]])
        assert task.aggregation()["accuracy"]([scored["accuracy"]]) == 1.0


def test_the_folder_of_this_installation_is_found() -> None:
    assert set(load(shared_path("tasks"), "chat")) == set(TASKS)
