"""Media that do not reach the model stop the run; what is asked in rounds is answered in rounds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from families import wrapped
from lmms_eval import models
from lmms_eval.api.instance import Instance
from PIL import Image

from lmms_topoprune.compat.videos import VideoReader
from lmms_topoprune.harness.media import UnseenMediumError, kind_of, refuse_unseen


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, each of one gray."""
    path = tmp_path_factory.mktemp("videos") / "gray.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_are_read_by_their_number(video: Path) -> None:
    reader = VideoReader(str(video), ctx=None, num_threads=1)
    assert len(reader) == 10 and reader.get_avg_fps() == 5
    frames = reader.get_batch([9, 0, 4]).asnumpy()
    assert frames.shape == (3, 24, 32, 3) and frames.mean(axis=(1, 2, 3)).round().tolist() == [180, 0, 80]
    assert reader[3].asnumpy().mean().round() == 60
    assert VideoReader(str(video), width=16, height=12).get_batch([0]).shape == (1, 12, 16, 3)


def test_kinds_of_media() -> None:
    assert kind_of(Image.new("RGB", (2, 2))) == "image"
    assert [kind_of(name) for name in ("a.MP4", "a.png", "a.wav", "film")] == [
        "video",
        "image",
        "audio",
        "video",
    ]
    assert kind_of({"array": np.zeros(3), "sampling_rate": 16000}) == "audio"
    assert kind_of(3) is None


@pytest.mark.parametrize(
    ("kinds", "inputs", "missing"),
    [
        (["image"], {"input_ids": torch.ones(1, 2), "pixel_values": torch.ones(1, 3, 2, 2)}, None),
        (["image"], {"input_ids": torch.ones(1, 2)}, "image"),
        (["image"], {"pixel_values": torch.ones(0, 3)}, "image"),
        (["image"], {"image_sizes": torch.ones(1, 2)}, "image"),
        (["video"], {"pixel_values_videos": torch.ones(1, 2)}, None),
        (["video"], {"pixel_values": torch.ones(8, 3)}, None),
        (["video"], {"video_grid_thw": torch.ones(1, 3)}, "video"),
        (["audio"], {"input_features": torch.ones(1, 3)}, None),
        (["audio"], {"pixel_values": torch.ones(1, 3)}, "audio"),
        (["image", "audio"], {"pixel_values": torch.ones(1, 3)}, "audio"),
        (["image"], {"image_patches": [torch.ones(1, 3)]}, None),
        ([], {"input_ids": torch.ones(1, 2)}, None),
    ],
)
def test_a_medium_has_to_be_among_the_inputs(kinds, inputs, missing) -> None:
    if missing is None:
        refuse_unseen(kinds, inputs, "family", object())
        return
    with pytest.raises(UnseenMediumError, match=f"task shows family an? {missing}, of which object hands"):
        refuse_unseen(kinds, inputs, "family", object())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty frames as most videos come, with a name that wrappers take for one."""
    path = tmp_path_factory.mktemp("films") / "gray.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 5 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def films(kind: str, video: Path) -> list[Instance]:
    if kind == "simple":
        arguments: Any = ("What?", {"max_new_tokens": 2}, lambda doc: [str(video)], 0, "tiny", "test")
    else:
        content = [{"type": "video", "url": str(video)}, {"type": "text", "text": "What?"}]
        arguments = ("What?", lambda doc: [{"role": "user", "content": content}], {"max_new_tokens": 2}, 0)
        arguments += ("tiny", "test")
    return [Instance("generate_until", arguments, 0, {"task": "tiny", "doc_id": 0, "repeats": 1})]


@pytest.mark.parametrize("on_error", ["raise", "record"])
@pytest.mark.parametrize("kind", ["simple", "chat"])
def test_a_video_that_llava_cannot_see_stops_the_run(kind, on_error, load, film) -> None:
    lm = load("dense_llava", kind, on_error=on_error)
    lm.task_dict = {"tiny": {"test": [{}]}}
    with pytest.raises(UnseenMediumError, match="llava_hf a video, of which LlavaProcessor hands"):
        lm.generate_until(films(kind, film))


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_an_image_that_a_guarded_family_drops_stops_the_run(on_error, tmp_path, asked, monkeypatch) -> None:
    folder = wrapped.save("qwen2_vl", tmp_path / "model")
    lm = models.get_model("dense_qwen2_vl")(pretrained=str(folder), device_map="cpu", on_error=on_error)
    few = type(asked)(asked.docs[:1])
    assert len(few.ask(lm, few.requests("simple"))) == 1
    kind = type(lm.processor)
    whole = kind.__call__

    def blind(self: Any, *args: Any, **given: Any) -> Any:
        inputs = whole(self, *args, **given)
        for name in ("pixel_values", "image_grid_thw"):
            inputs.pop(name, None)
        return inputs

    monkeypatch.setattr(kind, "__call__", blind)
    with pytest.raises(UnseenMediumError, match="the task shows qwen2_vl an image"):
        few.ask(lm, few.requests("simple"))


def in_rounds(kind: str, image: Image.Image, asked_in: list[tuple[int, list[str]]]) -> Instance:
    """Two rounds; the second shows the image and says what was answered before."""

    def doc_to_text(doc: Any, previous_output: Any, round_idx: int, previous_round_info: Any) -> Any:
        asked_in.append((round_idx, list(previous_output)))
        over = round_idx == 2
        return [image], f"You said {previous_output[-1]}. Really?", over, previous_output, {"n": round_idx}

    def doc_to_messages(doc: Any, round_idx: int | None = None, **given: Any) -> Any:
        if round_idx is None:
            return [{"role": "user", "content": [{"type": "text", "text": "What?"}]}]
        visuals, text, over, said, facts = doc_to_text(doc, round_idx=round_idx, **given)
        content = [{"type": "image", "url": visuals[0]}, {"type": "text", "text": text}]
        return [{"role": "user", "content": content}], over, said, facts

    settings, where = {"max_new_tokens": 3}, (0, "tiny", "test")
    if kind == "simple":
        arguments: Any = ("What?", settings, lambda doc: [], doc_to_text, *where)
    else:
        arguments = ("What?", doc_to_messages, settings, *where)
    return Instance("generate_until_multi_round", arguments, 0, {"task": "tiny", "doc_id": 0, "repeats": 1})


@pytest.mark.parametrize("kind", ["simple", "chat"])
def test_rounds_are_answered_one_after_the_other(kind, load, asked) -> None:
    lm = load("dense_llava", kind, batch_size=2)
    lm.task_dict = {"tiny": {"test": [{}]}}
    heard: list[tuple[int, list[str]]] = []
    found = lm.generate_until_multi_round(
        [in_rounds(kind, asked.docs[n]["images"][0], heard) for n in range(2)]
    )
    assert [len(answers) for answers in found] == [2, 2]
    assert [number for number, _ in heard] == [1, 1, 2, 2]
    assert heard[0][1] == found[0][:1] and heard[2][1] == found[0]
