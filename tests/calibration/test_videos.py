"""Videos: the frames read are those of the file, and their states those of a plain pass."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest
import torch
from vision_families import Alone, Tiny

from lmms_topoprune.calibration.collect import collect
from lmms_topoprune.calibration.loss import LossOracle
from lmms_topoprune.calibration.media_files import read_frames
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample
from lmms_topoprune.calibration.sources import load_samples
from lmms_topoprune.errors import InputError

# What the family's own template writes for a video.
MARKS = {
    "qwen2_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "glm4v": "<|begin_of_video|><|video|><|end_of_video|>",
    "llava_onevision": "<video>",
    "internvl_hf": "<video>\n",
}
FPS = 4
TEXT = "{% elif part['type'] == 'text' %}"
QUESTIONS = ("What moves?", "What moves? Look closely.", "Does it stop?")


def points(found):
    """(L + 1, N, d): the residual states."""
    return found.states()["residual"].points


@cache
def tiny(name: str) -> Tiny:
    """A family whose chat template knows videos."""
    made = Tiny.of(name)
    template = made.processor.chat_template.replace(
        TEXT, f"{{% elif part['type'] == 'video' %}}{MARKS[name]}{TEXT}"
    )
    made.processor.chat_template = made.processor.tokenizer.chat_template = template
    return made


def pixels(seed: int, frames: int = 15) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 56, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes frames to a video file without loss."""

    def to_file(frames):
        path = tmp_path_factory.mktemp("video") / "clip.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=Fraction(FPS))
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path

    return to_file


@pytest.fixture(scope="module")
def videos(write):
    return [Sample(text, video=write(pixels(seed))) for seed, text in enumerate(QUESTIONS)]


def expected(name: str, token: str) -> np.ndarray:
    """(L + 1, N, d): a plain pass of each video's frames 0, 2, ..., 14."""
    return torch.stack([alone.vector(token) for alone in passed(name)], 1).numpy()


@cache
def passed(name: str) -> list[Alone]:
    found = []
    for seed, text in enumerate(QUESTIONS):
        frames = pixels(seed)[::2]
        media, other = (
            {"videos": [x], "do_sample_frames": False, "video_metadata": [_facts()]}
            for x in (frames, 255 - frames)
        )
        found.append(tiny(name).passed(f"user: {MARKS[name]}{text}assistant:", media, other))
    return found


def _facts():
    return {"total_num_frames": 15, "fps": FPS, "frames_indices": list(range(0, 15, 2))}


def test_frames_are_spread_evenly(write):
    frames, facts = read_frames(write(pixels(0)))
    np.testing.assert_array_equal(frames, pixels(0)[::2])
    assert (facts["fps"], facts["total_num_frames"], facts["frames_indices"]) == (4.0, 15, [*range(0, 15, 2)])


def test_a_short_video_repeats_frames(write):
    frames, _ = read_frames(write(pixels(0, frames=3)), 5)
    np.testing.assert_array_equal(frames, pixels(0, frames=3)[[0, 0, 1, 2, 2]])


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "clip.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"the calibration video clip\.mp4 cannot be read"):
        read_frames(tmp_path / "clip.mp4")


def test_a_broken_video_is_skipped_and_counted_unless_strict(write, tmp_path, caplog):
    whole = write(pixels(0, frames=2)).read_bytes()
    rows = [json.dumps({"instruction": "What moves?", "video": f"{i}.mkv"}) for i in range(12)]
    (tmp_path / "films.jsonl").write_text("\n".join(rows))
    for i in range(12):
        (tmp_path / f"{i}.mkv").write_bytes(whole if i != 5 else whole[:100])
    source = str(tmp_path / "films.jsonl")
    assert len(load_samples(source, 12, seed=0)) == 11
    assert "skipped 1 broken" in caplog.text and "5.mkv cannot be read" in caplog.text
    with pytest.raises(InputError, match=r"5\.mkv cannot be read"):
        load_samples(source, 12, seed=0, strict=True)


@pytest.mark.parametrize("name", MARKS)
def test_states_are_those_of_a_plain_pass(name, videos):
    made = tiny(name)
    for token in ("last", "mean", "mean_text", "mean_image"):
        for size in (1, 3):
            found = (
                collect(made.model, made.processor, videos, token=token, batch_size=size)
                .states()["residual"]
                .points
            )
            np.testing.assert_allclose(found, expected(name, token), atol=2e-4, rtol=1e-4, err_msg=token)


def test_videos_images_and_text_may_be_mixed(videos, samples):
    made = tiny("qwen2_vl")
    mixed = [videos[0], Sample("Why?"), samples[0], videos[1], samples[1]]
    found = points(collect(made.model, made.processor, mixed, batch_size=4))
    np.testing.assert_allclose(found[:, [0, 3]], expected("qwen2_vl", "last")[:, :2], atol=2e-4, rtol=1e-4)


def test_an_answer_to_a_video_has_a_loss(videos):
    made = tiny("qwen2_vl")
    alone, together = (LossOracle.of(made.model, Prompter(made.processor), videos, n).mean() for n in (1, 3))
    assert alone == pytest.approx(together, abs=1e-4)


def test_an_image_and_a_video_in_one_sample_are_refused(videos, samples):
    both = Sample("Why?", samples[0].image, videos[0].video)
    with pytest.raises(InputError, match="has an image and a video; allowed: one of them"):
        Prompter(tiny("qwen2_vl").processor).prompt(both)
