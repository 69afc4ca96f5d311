"""The report page as a text: whole, self-contained, readable by machines."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import folders
import numpy as np
import pages
import pytest

from lmms_topoprune.comparison.side_by_side import compare
from lmms_topoprune.report.build import report
from lmms_topoprune.report.shape_charts import longest
from lmms_topoprune.report.svg import marker, ticks
from lmms_topoprune.sweep.run_folders import read_runs
from lmms_topoprune.topology import effective_persistence_image


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return pages.page(tmp_path_factory.mktemp("runs"))


class Outline(HTMLParser):
    """Collects open elements and complains about wrong nesting."""

    void = ("meta", "link", "input", "br", "wbr")

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


@pytest.fixture(scope="module")
def outline(page):
    outline = Outline()
    outline.feed(page)
    return outline


def test_well_formed(outline):
    assert outline.open == []
    anchors = {a["href"][1:] for tag, a in outline.seen if tag == "a"}
    ids = [a["id"] for _, a in outline.seen if "id" in a]
    assert anchors <= set(ids) and len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in outline.seen


def test_everything_that_was_promised_is_there(outline, page):
    for anchor in (
        *("leaderboard", "retention", "latency", "layers", "scores"),
        *("similarity", "image", "barcode", "provenance"),
    ):
        assert any(a.get("id") == anchor for _, a in outline.seen), anchor
    images = [a for tag, a in outline.seen if tag == "svg" and a.get("aria-hidden") != "true"]
    # Five charts for two widths, two heat maps and a persistence image; equal barcodes are drawn once.
    assert len(images) == 5 * 2 + 2 + 1
    assert all(a["role"] == "img" and a["aria-label"] for a in images)
    assert "topology, gardinazzi (k = 5)" in page


def test_every_image_has_its_numbers_in_a_table(page):
    sections = re.findall(r'<section aria-labelledby="(\w+)">(.*?)</section>', page, re.DOTALL)
    for anchor, content in sections:
        figures = content.count('class="wider"') or content.count("<figure>")
        assert content.count("<details><summary>") >= figures, anchor
        assert re.search(r'<th scope="col"', content) and re.search(r'<th scope="row"', content), anchor


def test_nothing_is_loaded_from_anywhere(page):
    assert "http:" not in page and "https:" not in page and "src=" not in page
    assert "@import" not in page and "url(" not in page and "default-src 'none'" in page


def test_names_are_escaped(page):
    assert "<b>&uniform" not in page and "&lt;b&gt;&amp;uniform" in page


def test_images_are_valid_svg_inside_their_frame(page):
    for image in re.findall(r"<svg class=\"(?:wider|narrow)\" role.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(image)
        _, _, width, height = map(float, root.get("viewBox").split())
        for mark in root.iter("circle"):
            assert 0 <= float(mark.get("cx")) <= width and 0 <= float(mark.get("cy")) <= height
        for mark in root.iter("rect"):
            assert float(mark.get("x")) + float(mark.get("width")) <= width + 0.1
            assert float(mark.get("height")) > 0


def test_every_layer_is_shown_in_both_widths(page):
    runs = len(pages.CRITERIA) * 3
    assert page.count('<rect class="dropped"') == 2 * len(pages.CRITERIA) * (2 + 4 + 6)
    assert page.count('<rect class="kept"') - 3 == 2 * (runs * pages.LAYERS) - page.count('class="dropped"')


def test_persistence_image_and_barcode_hold_the_bars(page):
    image = effective_persistence_image(pages.barcode(), 1)
    table = page.split("Bars of topology, gardinazzi (k = 5) by birth and death")[-1].split("</table>")[0]
    rows = re.findall(r'<th scope="row">(\d+)</th><td>(\d+)</td><td>(\d+)</td>', table)
    found = np.zeros_like(image)
    for birth, death, count in rows:
        found[int(birth), int(death)] = int(count)
    assert (found == image).all()
    drawn = page.split('aria-label="Barcode of H1')[1].split("</svg>")[0]
    assert sum(int(n) for n in re.findall(r"<title>(\d+) from state", drawn)) == 300


def test_the_longest_bars():
    bars = [(0, 1, 5), (0, 9, 2), (4, 8, 3), (2, 4, 9)]
    assert longest(bars, 6) == [(0, 9, 2), (2, 4, 1), (4, 8, 3)]
    assert longest(bars, 100) == sorted(bars)


def test_costs_are_in_the_leaderboard(page):
    row = page.split('<th scope="row">topology 60 %</th>')[1].split("</tr>")[0]
    assert 'data-value="7000000">7.00<' in row
    assert 'data-value="496000000">496<' in row  # the peak without the 4 MB that a sweep keeps


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
