"""Images are scaled to what a model's processor takes, as long as nobody can tell."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from lmms_topoprune.calibration import media_files
from lmms_topoprune.calibration.media_files import downscaled, processor_pixels
from lmms_topoprune.calibration.prompts import Prompter
from lmms_topoprune.calibration.samples import Sample


def photo(width: int, height: int) -> Image.Image:
    """Blobs with noise, as a camera sees them."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8))
    blobs = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=int)
    return Image.fromarray((blobs + rng.integers(-20, 21, blobs.shape)).clip(0, 255).astype(np.uint8))


@pytest.fixture
def processor_of(embedded_processor, monkeypatch):
    """A processor of that size, and the sizes of the images it gets, without the two it is asked with."""

    def make(size):
        processor, sizes = copy.deepcopy(embedded_processor), []
        square = {"height": size, "width": size}
        processor.image_processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)
        process = type(processor).__call__

        def noting(self, images=None, **given):
            sizes.extend(
                image.size for row in images for image in row if any(high for _, high in image.getextrema())
            )
            return process(self, images=images, **given)

        monkeypatch.setattr(type(processor), "__call__", noting)
        return processor, sizes

    return make


@pytest.mark.parametrize(
    ("size", "given", "passed"),
    [
        (336, (2300, 1800), (1288, 1008)),
        (336, (1800, 2300), (1008, 1288)),
        (672, (2300, 1800), (2300, 1800)),
        (64, (1400, 1400), (1024, 1024)),
        (64, (1000, 1000), (1000, 1000)),
        (336, (4000, 500), (4000, 500)),
    ],
)
def test_large_images_keep_three_times_what_is_taken_and_look_the_same(processor_of, size, given, passed):
    processor, sizes = processor_of(size)
    picture = photo(*given)
    found = Prompter(processor).encode([Sample("What?", picture)]).pixel_values
    assert sizes == [passed]
    whole = processor.image_processor(images=[picture], return_tensors="pt").pixel_values
    level = 1 / 255 / min(processor.image_processor.image_std)
    assert (found - whole).abs().max() < (3 * level if passed != given else 1e-9)


def test_the_processor_is_asked_once_and_for_large_images_alone(processor_of, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "lmms_topoprune.calibration.prompts.processor_pixels", lambda process: asked.append(1) or 336**2
    )
    prompter = Prompter(processor_of(336)[0])
    for sides, times in (((900, 900), 0), ((1200, 1200), 1), ((1300, 1200), 1)):
        prompter.encode([Sample("What?", photo(*sides))])
        assert len(asked) == times


@pytest.mark.parametrize(
    ("crops", "pixels"),
    [
        ([(3, 30, 40)], 1200),
        ([(3, 30, 40), (3, 50, 20)], 2200),
        ([[(1, 3, 30, 40)], [(2, 3, 50, 20)]], 3200),
    ],
)
def test_crops_of_different_sizes_in_a_list_count_together(crops, pixels):
    def nested(shape):
        return [nested(part) for part in shape] if isinstance(shape, list) else torch.zeros(shape)

    made = {
        "pixel_values": nested(crops),
        "image_sizes": [[2048, 2048]],
        "input_ids": torch.ones(1, 9).long(),
    }
    assert processor_pixels(lambda image: made) == pixels


def test_a_processor_that_does_not_say_gets_images_as_they_are():
    def refuses(image):
        raise ValueError("no blank images")

    picture = photo(2000, 1500)
    for process in (refuses, lambda image: {"input_ids": torch.zeros(1, 3, dtype=torch.long)}):
        assert processor_pixels(process) == media_files.PIXELS
    assert downscaled(picture, lambda: media_files.PIXELS) is picture
