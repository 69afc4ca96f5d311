"""The report page as a text: whole, self-contained, readable by machines."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import folders
import numpy as np
import pages
import pytest

import lmms_topoprune.report
from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.report.build import report
from lmms_topoprune.report.svg import marker, spread, ticks
from lmms_topoprune.report.tables import csv_table
from lmms_topoprune.sweep.run_folders import read_runs
from lmms_topoprune.topology import betti, effective_persistence_image

HOSTILE = '<img src=x onerror="alert(1)"></script></style>&amp;"\''


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return pages.page(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return read_runs([pages.write_sweep(tmp_path_factory.mktemp("sweep"))])


class Outline(HTMLParser):
    """Collects open elements and complains about wrong nesting."""

    void = ("meta", "link", "input", "br", "wbr", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline_of(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    return outline


@pytest.fixture(scope="module")
def outline(page):
    return outline_of(page)


def table(page: str, name: str) -> list[list[str]]:
    """The texts of the table of this name, its headings first."""
    content = page.split(f'aria-label="{name}" tabindex')[1].split("</table>")[0]
    lines = re.findall(r"<tr>(.*?)</tr>", content, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
    return [[text.replace("<wbr>", "") for text in line] for line in cells]


def test_well_formed(outline):
    assert outline.open == []
    anchors = {a["href"][1:] for tag, a in outline.seen if tag == "a" and "download" not in a}
    ids = [a["id"] for _, a in outline.seen if "id" in a]
    assert anchors <= set(ids) and len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in outline.seen


def test_everything_that_was_promised_is_there(outline, page):
    for anchor in ("verdict", "quality", "layers", "topology", "answers", "leaderboard", "provenance"):
        assert any(a.get("id") == anchor for _, a in outline.seen), anchor
    images = [a for tag, a in outline.seen if tag == "svg" and a.get("aria-hidden") != "true"]
    # Six figures for two widths, two maps and a persistence image; equal barcodes are drawn once.
    assert len(images) == 6 * 2 + 2 + 1
    assert all(a["role"] == "img" and a["aria-label"] for a in images)
    assert "topology, gardinazzi (k = 5)" in page


def test_every_figure_has_its_numbers_in_a_table(page):
    found = re.findall(r"<figure>(.*?)</figure>", page, re.DOTALL)
    assert len(found) == 9
    for figure in found:
        numbers = figure.split('<details class="numbers">')[1]
        assert '<th scope="col"' in numbers and '<th scope="row"' in numbers


def test_nothing_is_loaded_from_anywhere(page):
    assert (
        "http:" not in page and "https:" not in page and 'src="' not in page.replace('src="data:image/', "")
    )
    assert "@import" not in page and "url(" not in page and "default-src 'none'" in page


def test_names_are_escaped(page):
    assert "<b>&uniform" not in page and "&lt;b&gt;&amp;uniform" in page


def test_hostile_text_never_becomes_markup(tmp_path):
    """In a label, a title, a task, a question, an answer and a model's name."""
    for name, dropped, score in (("a", (), 1.0), ("b", (3, 4), 0.0)):
        rows = [
            row | {"filtered_resps": HOSTILE, "target": HOSTILE, "input": HOSTILE}
            for row in folders.exact([score] * 8)
        ]
        plan = folders.plan(dropped, HOSTILE if dropped else "dense", model=HOSTILE, layers=10)
        folders.write(tmp_path / name, {"vqa": rows}, plan)
    runs = read_runs([tmp_path])
    page = report(compare(runs), runs, HOSTILE)
    plain = report(compare(runs), runs, "plain")
    outline = outline_of(page)
    assert outline.open == [] and not any(tag == "img" for tag, _ in outline.seen)
    assert not any(name.startswith("on") for _, attributes in outline.seen for name in attributes)
    count = [len([1 for tag, _ in outline_of(text).seen if tag == "script"]) for text in (page, plain)]
    assert count == [1, 1] and page.count("&lt;img src=x") > 8 * 2


def test_one_place_escapes_html():
    """jinja2 and its Markup do; a Markup made of anything but a constant is a hole in it."""
    folder = Path(lmms_topoprune.report.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text()
        assert "html.escape" not in text and "import html" not in text, path
        made = re.findall(r"Markup\((?![\"'])", text)
        assert len(made) == (1 if path.name == "render.py" else 0), path  # the package's own style and script
    assert not any("|safe" in path.read_text() for path in folder.glob("templates/*"))


def test_images_are_valid_svg_inside_their_frame(page):
    images = re.findall(r"<svg role=.*?</svg>", page, re.DOTALL)
    assert len(images) == 15
    for image in images:
        root = ElementTree.fromstring(image)
        _, _, width, height = map(float, root.get("viewBox").split())
        for mark in root.iter("circle"):
            assert 0 <= float(mark.get("cx")) <= width and 0 <= float(mark.get("cy")) <= height
        for mark in root.iter("rect"):
            assert float(mark.get("x")) + float(mark.get("width")) <= width + 0.1
            assert float(mark.get("height")) > 0


def test_every_layer_is_shown_in_both_widths(page, sweep):
    drawn = page.split(">Dropped layers</h3>")[1].split("</figure>")[0]
    drops: dict[tuple[str, int], list[tuple[int, ...]]] = {}
    for run in sweep:
        if run.plan.dropped:
            drops.setdefault((run.plan.criterion, len(run.plan.dropped)), []).append(run.plan.dropped)
    counts = [Counter(layer for dropped in seeds for layer in dropped) for seeds in drops.values()]
    whole = sum(n == len(seeds) for c, seeds in zip(counts, drops.values(), strict=True) for n in c.values())
    some = sum(map(len, counts)) - whole
    assert len(drops) == 3 * len(pages.CRITERIA) and whole > some > 0
    assert drawn.count('<rect class="dropped"') == 2 * whole
    assert drawn.count('<rect class="dropped some"') == 2 * some
    assert drawn.count('<rect class="kept"') == 2 * (len(drops) * pages.LAYERS - whole - some)


def test_persistence_image_holds_the_bars(page):
    image = effective_persistence_image(pages.barcode(), 1)
    _, *rows = table(page, "Bars of topology, gardinazzi (k = 5) by birth and death")
    found = np.zeros_like(image)
    for birth, death, count in rows:
        found[int(birth), int(death)] = int(count)
    assert (found == image).all()


def test_betti_numbers_and_births_stand_beside_the_layers(page):
    _, *rows = table(page, "Topology by layer, topology, gardinazzi (k = 5)")
    assert [int(row[1]) for row in rows] == betti(pages.barcode(), 1).tolist()
    assert [int(row[2]) for row in rows] == effective_persistence_image(pages.barcode(), 1).sum(1).tolist()


def test_costs_are_in_the_leaderboard(page):
    row = page.split('<th scope="row">cosine 60 %</th>')[1].split("</tr>")[0]
    assert 'data-value="7000000">7.00<' in row
    assert 'data-value="496000000">496<' in row  # the peak without the 4 MB that a sweep keeps


def test_the_whole_comparison_is_saved_as_csv(tmp_path):
    runs = read_runs([pages.write_sweep(tmp_path, ("topology", '"a,b"'))])
    comparison = compare(runs, every_seed=True)
    saved = re.search(r'href="data:text/csv;charset=utf-8,([^"]*)"', report(comparison, runs))
    assert unquote(saved[1]) == csv_table(comparison)
    assert len(list(csv.DictReader(io.StringIO(unquote(saved[1]))))) == 2 * len(comparison.rows)


def test_dense_alone_makes_a_report(tmp_path):
    folders.write(tmp_path, {"vqa": folders.exact([1.0, 0.0])}, folders.plan((), "dense"))
    runs = read_runs([tmp_path])
    assert "none of them is pruned" in report(compare(runs), runs)


def test_series_look_different():
    assert len({marker(number, 7, 7) for number in range(32)}) == 32


def test_ticks_are_round_and_inside():
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(-3, 7, 4) == [-2.5, 0, 2.5, 5]
    assert ticks(1, 1) == [1]


def test_labels_move_apart_no_more_than_needed():
    assert spread([10, 50, 90], 15, 0, 100) == [10, 50, 90]
    assert spread([50, 50, 50], 10, 0, 100) == [40, 50, 60]
    assert spread([5, 0], 10, 0, 100) == [10, 0]  # in their order, inside the frame
    rng = np.random.default_rng(0)
    for _ in range(50):
        moved = spread(rng.uniform(0, 100, 6).tolist(), 15, 0, 100)
        assert min(np.diff(sorted(moved))) > 15 - 1e-9 and min(moved) >= 0 and max(moved) <= 100


def test_seeds_put_together_keep_their_own_lines(tmp_path):
    runs = read_runs([pages.write_sweep(tmp_path, ("topology", "cosine"))])
    page = report(compare(runs, every_seed=True), runs)
    assert page.count('<tr class="seed" hidden>') == 3 * 3  # three sparsities of three seeds
    assert re.search(r'class="seeds" aria-expanded="false">topology 20 % \(3 seeds\)<', page)
    apart = report(compare(runs), runs)  # without a row for each seed there is nothing to unfold
    assert apart.count('<tr class="seed" hidden>') == 0 and "topology 20 % (3 seeds)" in apart
