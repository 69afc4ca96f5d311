"""Videos in calibration for LLaVA-NeXT-Video and Video-LLaVA: the states are those of a plain pass."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import transformers as hf
from families.tiny import text, tiny, tokenizer
from families.wrapped import GRID, SIZE
from vision_families import Tiny

from lmms_topoprune.calibration import samples as sample_digest
from lmms_topoprune.calibration.collect import collect
from lmms_topoprune.calibration.samples import Sample

pytestmark = pytest.mark.slow

QUESTIONS = ("What moves?", "What moves? Look closely.", "Does it stop?")
FPS = 4


def points(found):
    """(L + 1, N, d): the residual states."""
    return found.states()["residual"].points


def _parts() -> tuple[Any, dict[str, Any]]:
    """A tokenizer whose template writes <image> and <video>, and what both processors take besides."""
    words = tokenizer("<image>", "<video>", image="<image>")
    text = "{% elif part['type'] == 'text' %}"
    words.chat_template = words.chat_template.replace(
        text, f"{{% elif part['type'] == 'video' %}}<video>{text}"
    )
    shared = {
        "tokenizer": words,
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": words.chat_template,
    }
    return words, shared


def llava_next_video() -> tuple[Any, Any]:
    words, shared = _parts()
    config = hf.LlavaNextVideoConfig(
        vision_config=tiny(hf.CLIPVisionConfig),
        text_config=text(hf.LlamaConfig, words),
        image_token_index=3,
        video_token_index=4,
        image_grid_pinpoints=GRID,
    )
    sizes = {"size": {"shortest_edge": 28}, "crop_size": SIZE}
    processor = hf.LlavaNextVideoProcessor(
        image_processor=hf.LlavaNextImageProcessor(image_grid_pinpoints=GRID, **sizes),
        video_processor=hf.LlavaNextVideoVideoProcessor(**sizes),
        **shared,
    )
    return config, processor


def video_llava() -> tuple[Any, Any]:
    words, shared = _parts()
    config = hf.VideoLlavaConfig(
        vision_config=tiny(hf.CLIPVisionConfig),
        text_config=text(hf.LlamaConfig, words),
        image_token_index=3,
        video_token_index=4,
        image_seq_length=4,
        video_seq_length=40,
    )
    sizes = {"size": {"shortest_edge": 28}, "crop_size": SIZE}
    processor = hf.VideoLlavaProcessor(
        image_processor=hf.VideoLlavaImageProcessor(**sizes),
        video_processor=hf.VideoLlavaVideoProcessor(**sizes),
        **shared,
    )
    return config, processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llava_next_video": llava_next_video,
    "video_llava": video_llava,
}


@cache
def made(name: str) -> Tiny:
    config, processor = FAMILIES[name]()
    torch.manual_seed(0)
    model = getattr(hf, type(config).__name__.replace("Config", "ForConditionalGeneration"))(config).eval()
    with torch.no_grad():  # large enough that every token matters to the others
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return Tiny(name, model, processor)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (15, 56, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Three questions about videos that were written without loss."""
    found = []
    for seed, question in enumerate(QUESTIONS):
        path = tmp_path_factory.mktemp("video") / "clip.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=Fraction(FPS))
            stream.height, stream.width, stream.pix_fmt = 56, 56, "bgr0"
            for frame in pixels(seed):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        found.append(Sample(question, video=path))
    return found


def expected(name: str, token: str) -> np.ndarray:
    """(L + 1, N, d): a plain pass of frames 0, 2, ..., 14 of each video."""
    facts = {"total_num_frames": 15, "fps": FPS, "frames_indices": list(range(0, 15, 2))}
    found = []
    for seed, question in enumerate(QUESTIONS):
        frames = pixels(seed)[::2]
        media, other = (
            {"videos": [clip], "do_sample_frames": False, "video_metadata": [facts]}
            for clip in (frames, 255 - frames)
        )
        found.append(made(name).passed(f"user: <video>{question}assistant:", media, other).vector(token))
    return torch.stack(found, 1).numpy()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("token", ["last", "mean", "mean_text", "mean_image"])
def test_states_are_those_of_a_plain_pass(name: str, token: str, videos: list[Sample]) -> None:
    for size in (1, 3):
        found = (
            collect(made(name).model, made(name).processor, videos, token=token, batch_size=size)
            .states()["residual"]
            .points
        )
        np.testing.assert_allclose(found, expected(name, token), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_other_frames_give_other_states(name: str, videos: list[Sample]) -> None:
    tiny_model = made(name)
    shifted = [
        Sample(question, video=clip.video) for question, clip in zip(QUESTIONS, videos[1:], strict=False)
    ]
    found = points(collect(tiny_model.model, tiny_model.processor, shifted, batch_size=2))
    assert np.abs(found - expected(name, "last")[:, :2]).max() > 1e-2


def test_the_number_of_frames_is_part_of_the_digest(
    videos: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Path(str(videos[0].video))
    before = Sample("What moves?", video=clip).digest
    assert before == videos[0].digest
    monkeypatch.setattr(sample_digest, "FRAMES", 16)
    assert Sample("What moves?", video=clip).digest != before
