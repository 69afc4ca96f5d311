"""Calibration samples from files and data sets: drawn by seed, broken rows skipped up to a limit."""

from __future__ import annotations

import base64
import json
import os
import time
import tracemalloc

import pytest
from PIL import Image, ImageFile

from lmms_topoprune.calibration import media_files
from lmms_topoprune.calibration.calibration_set import CalibrationSets
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
    assert {s.pixels().tobytes() for s in found} == {s.image.tobytes() for s in samples}
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


def test_strict_refuses_what_was_drawn_leniently_before(folder):
    sets, asked = CalibrationSets(), (str(folder / "pairs.jsonl"), 31, 0)
    whole = sets.of(*asked, strict=True)
    assert sets.of(*asked) is whole is sets.of(*asked, strict=True), "drawn once"
    (folder / "07.png").unlink()
    sets = CalibrationSets()
    assert len(sets.of(*asked)) == 31
    with pytest.raises(InputError, match=r"pairs.jsonl'.*07.png"):
        sets.of(*asked, strict=True)


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


QUESTION = "What is in the picture?"
TURNS = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": f"<image>\n{QUESTION}"}]
ANSWER = {"from": "gpt", "value": "A square."}


def parts(place, text=QUESTION):
    return [{"type": "image_url", "image_url": {"url": place}}, {"type": "text", "text": text}]


def inline(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": f"<image>\n{QUESTION}", "image": "00.png"},
        {"instruction": f"<|vision_start|><|image_pad|><|vision_end|>{QUESTION}", "images": ["00.png"]},
        {"instruction": f"<img><IMG_CONTEXT></img>{QUESTION} [IMG]", "image": "00.png"},
        {"id": "7", "image": "00.png", "conversations": [*TURNS, ANSWER]},
        {"images": ["00.png", "01.png"], "conversations": [*TURNS, ANSWER, *TURNS]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": parts("00.png")},
            ]
        },
        {"messages": [{"role": "user", "content": parts("INLINE")}]},
        {"messages": [{"role": "user", "content": f"<|image_1|>{QUESTION}"}], "images": ["00.png"]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "00.png"}, *parts("01.png")[1:]]}
            ]
        },
    ],
    ids=["marker", "Qwen's", "InternVL's", "LLaVA", "ShareGPT", "OpenAI", "base64", "Phi's", "Hugging Face"],
)
@pytest.mark.parametrize("form", ["lines", "list", "indented", "marked"])
def test_rows_as_people_have_them(folder, row, form):
    row = json.loads(json.dumps(row).replace("INLINE", inline(folder / "00.png")))
    path, rows = folder / "rows.json", [row, {"instruction": "Why?"}]
    texts = {"list": json.dumps(rows), "indented": json.dumps(rows, indent=2)}
    path.write_text(
        texts.get(form, "\r\n".join(map(json.dumps, rows))), "utf-8-sig" if form == "marked" else "utf-8"
    )
    found = {sample.instruction: sample for sample in load_samples(str(path), 2, 0, strict=True)}
    assert found.keys() == {QUESTION, "Why?"}
    with Image.open(folder / "00.png") as image:
        assert found[QUESTION].pixels().tobytes() == image.convert("RGB").tobytes()


def test_what_is_left_out_or_repeated_is_counted(folder, caplog):
    row = {"instruction": "<image> <image> Which is larger?", "images": ["00.png", "01.png"]}
    (folder / "rows.jsonl").write_text("\n".join([json.dumps(row)] * 3))
    load_samples(str(folder / "rows.jsonl"), 3, 0)
    for note in ("6 markers taken", "3 images and videos beyond the first", "2 samples that repeat"):
        assert note in caplog.text


def test_columns_of_a_data_set_may_be_a_conversation(folder):
    image = {"bytes": (folder / "00.png").read_bytes(), "path": None}
    turns = {"from": ["human", "gpt"], "value": [f"<image>\n{QUESTION}", "A square."]}
    for talk in (TURNS, turns):
        assert from_row({"image": image, "conversations": talk}).sample.instruction == QUESTION


@pytest.mark.parametrize(
    "line",
    [
        "[" * 10**5,
        '{"instruction": ' + "1" * 5000 + "}",
        '{"instruction": "\\ud800"}',
        '{"instruction": "<image>"}',
    ]
    + [
        f'{{"instruction": "Why?", "image": "{place}"}}'
        for place in ("pipe", "http://x/y.png", "data:,!", "a\\u0000")
    ],
)
def test_one_hostile_line_is_skipped_and_counted(folder, caplog, line):
    os.mkfifo(folder / "pipe")
    path = folder / "pairs.jsonl"
    path.write_text(path.read_text() + line)
    assert len(load_samples(str(path), 33, 0)) == 32
    assert "skipped 1 broken calibration samples" in caplog.text and "line 34 of pairs.jsonl" in caplog.text


def test_a_pipe_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="it is a pipe or a device"):
        load_samples(str(tmp_path / "pipe"), 3, 0)


def test_companions_of_pictures_are_no_pictures(folder):
    for name in ("._00.png", ".ipynb_checkpoints/00.png", "__MACOSX/00.png", "@eaDir/00.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "00.png").read_bytes())
    assert len(load_samples(str(folder), 100, 0, strict=True)) == 32


def test_a_picture_stands_upright(tmp_path):
    picture, exif = Image.new("RGB", (40, 20), "red"), Image.Exif()
    picture.paste("blue", (0, 0, 20, 20))
    exif[0x0112] = 6  # the camera was turned: what is stored left belongs at the top
    picture.save(tmp_path / "a.png", exif=exif)
    seen = load_samples(str(tmp_path), 1, 0)[0].pixels()
    assert (seen.size, seen.getpixel((10, 5)), seen.getpixel((10, 35))) == (
        (20, 40),
        (0, 0, 255),
        (255, 0, 0),
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_pictures_are_scaled_as_they_are_read(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(media_files, "PIXELS", 100 * 50)
    Image.linear_gradient("L").resize((900, 450)).save(tmp_path / f"a.{kind.lower()}", kind)
    seen = load_samples(str(tmp_path), 1, 0)[0].pixels()
    assert seen.size in ((100, 50), (99, 50))  # a JPEG file decodes at 225 x 113
    assert seen.getpixel((50, 2))[0] < 20 and seen.getpixel((50, 47))[0] > 235


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(media_files, "DECODED", 10**5)
    Image.new("1", (1000, 1000)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"1000 x 1000 pixels; allowed: 100000 in all"):
        load_samples(str(tmp_path), 1, 0)


def test_pixels_are_read_when_they_are_needed_and_kept_by_nobody(folder, samples):
    found = load_samples(str(folder / "pairs.jsonl"), 32, 0)
    assert not any(isinstance(sample.image, Image.Image) for sample in found)
    assert {sample.pixels().tobytes() for sample in found} == {s.image.tobytes() for s in samples}


def test_a_picture_that_changes_after_it_was_drawn_is_refused(folder):
    (sample,) = load_samples(str(folder), 1, 0)
    for path in folder.glob("*.png"):
        Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(InputError, match="changed while it was used"):
        sample.pixels()
    for path in folder.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="cannot be read again"):
        sample.pixels()


def test_many_lines_are_drawn_from_without_holding_them(tmp_path):
    line = json.dumps({"instruction": "Why? " * 50}) + "\n"
    with (tmp_path / "many.jsonl").open("w") as file:
        file.writelines(line for _ in range(20_000))  # 5 MB
    start = time.process_time()
    load_samples(str(tmp_path / "many.jsonl"), 8, 0)
    assert time.process_time() - start < 0.5  # a tenth of 200,000 lines, which may take five seconds
    tracemalloc.start()
    load_samples(str(tmp_path / "many.jsonl"), 8, 0)
    assert tracemalloc.get_traced_memory()[1] < 4 * 10**6
    tracemalloc.stop()
