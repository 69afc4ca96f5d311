"""The embedded calibration set: balanced, varied, reproducible, documented, disjoint from the tests."""

from __future__ import annotations

from collections import Counter

import pytest
from PIL import Image

from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.calibration.sources import load_samples
from lmms_topoprune.embedded import data, scenes
from lmms_topoprune.errors import OptionError
from training import attribution


@pytest.fixture(scope="module")
def all_samples() -> list[Sample]:
    return load_samples("embedded", data.SIZE, 0)


def is_scene(sample: Sample) -> bool:
    assert sample.image is not None
    return sample.image.size == (scenes.IMAGE_SIZE, scenes.IMAGE_SIZE)


def test_there_are_512_different_pairs_half_of_them_photographs(all_samples: list[Sample]) -> None:
    assert len(all_samples) == 512
    assert len({sample.digest for sample in all_samples}) == 512
    assert sum(map(is_scene, all_samples)) == 256
    assert all(sample.image is not None and sample.image.mode == "RGB" for sample in all_samples)


@pytest.mark.parametrize("count", [16, 64, 129])
def test_every_prefix_is_a_balanced_mix(all_samples: list[Sample], count: int) -> None:
    prefix = load_samples("embedded", count, 0)
    assert fingerprint(prefix) == fingerprint(all_samples[:count])
    assert abs(2 * sum(map(is_scene, prefix)) - count) <= 1
    pictures = Counter(s.image.tobytes() for s in prefix if not is_scene(s) and s.image is not None)
    assert max(pictures.values()) - (count // 2 >= 64) <= 1


def test_photographs_and_instructions_vary(all_samples: list[Sample]) -> None:
    photos = [s for s in all_samples if not is_scene(s)]
    assert len({s.image.tobytes() for s in photos if s.image}) >= 40
    assert len({s.instruction for s in photos}) >= 150
    assert len({s.instruction for s in all_samples if is_scene(s)}) >= 150


def test_a_seed_draws_another_set_and_the_same_one_again(all_samples: list[Sample]) -> None:
    assert fingerprint(load_samples("embedded", data.SIZE, 0)) == fingerprint(all_samples)
    other = load_samples("embedded", data.SIZE, 1)
    shared = {s.digest for s in other} & {s.digest for s in all_samples}
    # Scenes are drawn anew; of six instructions a photograph, four are drawn each time.
    assert 0 < len(shared) < 256


@pytest.mark.parametrize("count", [0, 513])
def test_a_count_out_of_range_is_one_sentence(count: int) -> None:
    with pytest.raises(OptionError, match=f"samples is {count}; allowed: 1 to 512"):
        load_samples("embedded", count, 0)


def test_every_photograph_is_attributed_and_small() -> None:
    files = {p["file"] for p in data.photos()}
    assert {path.name for path in (data.FOLDER / "photos").iterdir()} == files
    assert len(files) == len(data.photos()) >= 40
    for photo in data.photos():
        assert photo["license"] in attribution.LICENSES
        assert photo["author"] and photo["source"].startswith("http") and photo["package"]
        assert len(set(photo["instructions"])) == 4
        with Image.open(data.FOLDER / "photos" / photo["file"]) as image:
            assert max(image.size) <= 336
    assert sum(p.stat().st_size for p in (data.FOLDER / "photos").iterdir()) < 3_000_000
    assert (data.FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8") == attribution.attribution()
