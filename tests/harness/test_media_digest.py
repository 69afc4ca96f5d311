"""What a document shows is hashed into the samples: two runs can be told to have seen the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
from PIL import Image

from lmms_topoprune.compat.evaluation import note_model, observe_saving
from lmms_topoprune.harness.answers import Answers
from lmms_topoprune.harness.media import MediaSeen, media_digest

RED, BLUE = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))


def test_pixels_files_and_sounds_are_told_apart(tmp_path):
    one, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    one.write_bytes(b"a" * 100)
    other.write_bytes(b"b" * 100)
    sound = {"array": np.zeros(5), "sampling_rate": 8000}
    shown = (
        [RED],
        [BLUE],
        [RED, BLUE],
        [BLUE, RED],
        [RED.resize((4, 16))],
        [str(one)],
        [str(other)],
        [sound],
    )
    digests = [media_digest(made) for made in shown]
    assert len(set(digests)) == len(digests) and all(len(digest) == 16 for digest in digests)
    assert media_digest([RED.copy()]) == digests[0] and media_digest([]) == ""


def test_a_conversation_shows_what_its_images_show():
    content = [{"type": "image", "url": RED}, {"type": "text", "text": "Which color?"}]
    assert media_digest([{"role": "user", "content": content}]) == media_digest([RED])


def test_what_a_request_shows_is_noted_when_it_is_made():
    answers = Answers()
    request = SimpleNamespace(args=("text", {}, lambda doc: [RED]), task_name="vqa", doc_id=3)
    watched = MediaSeen("llava_hf", None, answers=answers).watching(request)
    assert answers.media == {} and watched.arguments[2]({}) == [RED]
    assert answers.media == {("vqa", 3): media_digest([RED])}


def test_the_samples_file_holds_it(tmp_path):
    from lmms_topoprune.results.sample_files import read_columns

    end = observe_saving(SimpleNamespace(results_saved=lambda *_: None, samples_saved=lambda *_: None))
    tracker = EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized, tracker.date_id = "tiny", "1"
    note_model(tracker, SimpleNamespace(answers=Answers(media={("vqa", 0): "abc"})))
    row = {
        "doc_id": 0,
        "doc": {},
        "target": "yes",
        "arguments": ["?"],
        "resps": [["yes"]],
        "filtered_resps": ["yes"],
    }
    tracker.save_results_samples(task_name="vqa", samples=[{**row, "doc_hash": "h", "exact_match": 1.0}])
    end()
    samples = read_columns(tmp_path / "tiny" / "1_results.json", "vqa")
    assert "media_digest" in samples.exam and '"media_digest": "abc"' in samples.path.read_text()
