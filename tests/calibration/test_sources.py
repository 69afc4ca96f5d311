"""Calibration samples from files and data sets: drawn by seed, broken rows skipped up to a limit."""

from __future__ import annotations

import json

import pytest
from PIL import ImageFile

from lmms_topoprune.calibration.hub import from_row
from lmms_topoprune.calibration.samples import Sample, fingerprint
from lmms_topoprune.calibration.sources import load_samples
from lmms_topoprune.errors import InputError, OptionError, UnreachableError


@pytest.fixture
def folder(tmp_path, samples):
    """32 images, a file of pairs and two files that are no images."""
    rows = []
    for i, sample in enumerate(samples):
        sample.image.save(tmp_path / f"{i:02}.png")
        rows.append({"image": f"{i:02}.png", "instruction": sample.instruction})
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_jsonl_file_gives_the_pairs_it_holds(folder, samples):
    found = load_samples(str(folder / "pairs.jsonl"), 32, seed=0)
    assert {s.digest for s in found} == {s.digest for s in samples}


def test_a_folder_gives_its_images(folder, samples):
    found = load_samples(str(folder), 32, seed=0)
    assert {s.image.tobytes() for s in found} == {s.image.tobytes() for s in samples}
    assert {s.instruction for s in found} == {"Describe the image."}


def test_the_seed_draws(folder):
    draws = [fingerprint(load_samples(str(folder / "pairs.jsonl"), 8, seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_a_text_needs_no_image(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"instruction": "Why?"}\n')
    assert load_samples(str(tmp_path / "texts.jsonl"), 5, 0) == [Sample("Why?")]


@pytest.mark.parametrize("lenient", [False, True], ids=["alone", "as lmms-eval sets it"])
def test_a_broken_row_is_skipped_and_counted(folder, caplog, monkeypatch, lenient):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:60])
    found = load_samples(str(folder / "pairs.jsonl"), 32, seed=0)
    assert len(found) == 31 and "skipped 1 broken" in caplog.text


def test_strict_refuses_a_broken_row(folder):
    (folder / "07.png").unlink()
    with pytest.raises(InputError, match=r"pairs.jsonl'.*07.png"):
        load_samples(str(folder / "pairs.jsonl"), 32, seed=0, strict=True)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "has no text under 'instruction'"),
        ('{"image": "00.png"}', "has no text"),
        ('{"image": 3, "instruction": "Why?"}', "has no path under 'image'"),
    ],
)
def test_many_broken_rows_are_refused_with_the_first_problem(folder, line, problem):
    path = folder / "pairs.jsonl"
    path.write_text(path.read_text() + f"{line}\n" * 20)
    with pytest.raises(InputError, match=problem):
        load_samples(str(path), 52, seed=0)


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 usable"):
        load_samples(str(tmp_path), 5, 0)


@pytest.mark.parametrize("source", ["embeded", ""])
def test_an_unknown_source_is_refused(source):
    with pytest.raises(OptionError, match=rf"calibration is '{source}'; allowed: embedded, a JSONL file"):
        load_samples(source, 5, 0)


def test_a_file_that_is_no_text_is_refused(folder):
    with pytest.raises(InputError, match=r"00\.png' is not a JSONL file"):
        load_samples(str(folder / "00.png"), 5, 0)


def test_a_line_ends_where_json_lines_say(tmp_path):
    text = "One\u2028two"
    (tmp_path / "texts.jsonl").write_text(json.dumps({"instruction": text}, ensure_ascii=False), "utf-8")
    assert load_samples(str(tmp_path / "texts.jsonl"), 1, 0) == [Sample(text)]


def test_further_readers_take_their_prefix(samples):
    def task(rest, count, seed, strict):
        assert (rest, count, seed, strict) == ("mme:test", 3, 7, True)
        return samples[:count]

    assert load_samples("task:mme:test", 3, 7, readers={"task": task}, strict=True) == samples[:3]


def test_a_local_data_set_is_streamed(tmp_path, samples):
    datasets = pytest.importorskip("datasets")
    rows = {"question": [s.instruction for s in samples], "image": [s.image for s in samples]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    found = load_samples(f"hf:{tmp_path}", 8, seed=0)
    assert {s.digest for s in found} <= {s.digest for s in samples} and len(found) == 8
    assert fingerprint(load_samples(f"hf:{tmp_path}:train", 8, seed=0)) == fingerprint(found)


def test_a_data_set_out_of_reach_is_one_sentence(monkeypatch):
    pytest.importorskip("datasets")

    def unreachable(*_, **__):
        raise ConnectionError("no route to host\nand a second line")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    monkeypatch.setattr("lmms_topoprune.calibration.hub.check_reachable", lambda *_, **__: None)
    with pytest.raises(
        UnreachableError, match=r"'nobody/nothing' cannot be read .*pass calibration=embedded"
    ) as caught:
        load_samples("hf:nobody/nothing", 8, 0)
    assert "\n" not in str(caught.value)


def test_a_row_without_a_usable_column_says_what_it_has():
    with pytest.raises(InputError, match="a row has the columns label, score; needed: one of instruction"):
        from_row({"label": 1, "score": 2})
