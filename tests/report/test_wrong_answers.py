"""Documents that pruning lost: which are shown, with what picture."""

from __future__ import annotations

import base64
import io

import folders
import pages
from PIL import Image

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.report.groups import groups
from lmms_topoprune.report.wrong_answers import EDGE, picture, wrong_answers
from lmms_topoprune.sweep.run_folders import read_runs

DENSE, PRUNED = [1, 1, 1, 0, 0, 1], [1, 0, 1, 0, 1, 0]


def write(folder, **more):
    for name, scores, dropped in (("a", DENSE, ()), ("b", PRUNED, (3, 4))):
        rows = [
            row | {"target": "yes", "filtered_resps": ["yes" if row["exact_match"] else "no"]} | more
            for row in folders.exact([float(score) for score in scores])
        ]
        folders.write(folder / name, {"vqa": rows}, folders.plan(dropped, "topology" if dropped else "dense"))
    runs = read_runs([folder])
    comparison = compare(runs)
    dense = next(run for run in runs if run.is_dense)
    return wrong_answers(dense, {run.label: run for run in runs}, groups(comparison))


def test_only_what_was_right_before_and_is_wrong_now(tmp_path):
    found = write(tmp_path)
    assert sorted(document.name for document in found.documents) == ["1", "5"]
    assert (found.right, found.lost, found.runs) == (4, 2, ["topology, 2 layers"])
    document = found.documents[0]
    assert (document.dense, document.target, document.answers[0].said) == ("yes", "yes", "no")
    assert document.question == f"question {document.name}"


def test_the_draw_is_the_same_each_time_and_takes_tasks_in_turn(tmp_path):
    for name, dropped, score in (("a", (), 1.0), ("b", (3,), 0.0)):
        samples = {"long": folders.exact([score] * 40), "short": folders.exact([score] * 3)}
        folders.write(tmp_path / name, samples, folders.plan(dropped, "topology" if dropped else "dense"))
    runs = read_runs([tmp_path])
    asked = runs[0], {run.label: run for run in runs}, groups(compare(runs))
    found = wrong_answers(*asked, count=8)
    assert [document.task for document in found.documents][:4] == ["long", "short", "long", "short"]
    assert len(found.documents) == 8 and found.lost == 43
    assert found == wrong_answers(*asked, count=8) != wrong_answers(*asked, count=8, seed=1)


def test_a_document_of_two_filters_is_shown_as_the_filter_has_it(tmp_path):
    for name, dropped, strict in (("a", (), 1.0), ("b", (3,), 0.0)):
        rows = [
            row | {"filter": of, "filtered_resps": f"{of} {value:g}", "exact_match": value}
            for of, value in (("strict", strict), ("loose", 1.0))
            for row in folders.exact([1.0] * 4)
        ]
        plan = folders.plan(dropped, "topology" if dropped else "dense")
        results = folders.write(tmp_path / name, {"vqa": rows}, plan)
        results.write_text(results.read_text().replace('"effective": 8', '"effective": 4'))
    runs = read_runs([tmp_path])
    found = wrong_answers(runs[0], {run.label: run for run in runs}, groups(compare(runs)))
    assert (found.lost, found.right) == (4, 8)
    assert {document.task for document in found.documents} == {"vqa [strict]"}
    assert {(d.dense, d.answers[0].said) for d in found.documents} == {("strict 1", "strict 0")}


def test_a_picture_that_the_run_kept_is_shown_small(tmp_path):
    file = tmp_path / "photo.png"
    Image.new("RGB", (2000, 500), "red").save(file)
    for source in (str(file), file.as_uri()):
        data = picture({"input_media": ["https://elsewhere.example/x.png", source]})
        image = Image.open(io.BytesIO(base64.b64decode(data.removeprefix("data:image/webp;base64,"))))
        assert image.size == (EDGE, EDGE // 4)
    assert picture({"input_media": [pages.PICTURE]}).startswith("data:image/webp;base64,")


def test_the_pictures_of_this_package_s_tasks_are_found():
    assert picture({"accuracy": {"score": 1.0, "image_id": "000"}}).startswith("data:image/webp;base64,")


def test_what_is_no_picture_is_not_shown(tmp_path):
    """A results file from elsewhere names a file of this machine: only pictures get onto the page."""
    secret = tmp_path / "secret.png"
    secret.write_text("password")
    for source in (
        str(secret),
        "data:image/png;base64,cGFzc3dvcmQ=",
        "data:image/png;base64,%",
        "/dev/null",
        "",
    ):
        assert picture({"input_media": [source]}) == ""
    assert picture({"input_media": None}) == picture({"accuracy": {"image_id": "nowhere"}}) == ""


def test_long_answers_and_chat_messages_become_short_texts(tmp_path):
    messages = [{"role": "user", "content": [{"type": "text", "text": "Is it?"}]}]
    document = write(tmp_path, input=messages, filtered_resps=["w" * 5000]).documents[0]
    assert document.question == "Is it?"
    assert len(document.dense) < 700


def test_without_samples_there_is_nothing_to_show(tmp_path):
    write(tmp_path)
    runs = read_runs([tmp_path])
    found = groups(compare(runs))
    for file in tmp_path.rglob("*samples*"):
        file.unlink()
    assert wrong_answers(runs[0], {run.label: run for run in runs}, found) is None
