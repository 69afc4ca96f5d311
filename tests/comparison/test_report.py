"""The report page: whole, self-contained, readable by machines and, in a browser, free of errors."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import folders
import numpy as np
import pytest

from lmms_topoprune.comparison import compare, read_runs
from lmms_topoprune.comparison.report import report
from lmms_topoprune.comparison.svg import ticks

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.fixture
def page(tmp_path):
    rng = np.random.default_rng(0)
    for name, share, dropped in (
        ("dense", 0.9, ()),
        ("topology", 0.8, (3, 4)),
        ("<b>&cosine", 0.6, (5, 6, 7)),
    ):
        scores = (rng.random(60) < share).astype(float).tolist()
        plan = folders.plan(dropped, name, scores=tuple(rng.random(10)) if dropped else None)
        folders.write(tmp_path / f"run{len(dropped)}", {"vqa": folders.exact(scores)}, plan, {"vqa": 0.3})
    runs = read_runs([tmp_path])
    return report(compare(runs), runs, similarities={"topology": [[1, 0.5], [0.5, 1]]})


class Outline(HTMLParser):
    """Collects open elements and complains about wrong nesting."""

    void = ("meta", "link", "input", "br")

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


def test_well_formed_and_named_for_screen_readers(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    images = [a for tag, a in outline.seen if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(images) == 5 and all(a["role"] == "img" and a["aria-label"] for a in images)
    anchors = {a["href"][1:] for tag, a in outline.seen if tag == "a"}
    ids = [a["id"] for _, a in outline.seen if "id" in a]
    assert anchors <= set(ids) and len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in outline.seen


def test_nothing_is_loaded_from_anywhere(page):
    assert "http" not in page and "src=" not in page and "@import" not in page and "url(" not in page


def test_names_are_escaped(page):
    assert "<b>&cosine" not in page and "&lt;b&gt;&amp;cosine" in page


def test_images_are_valid_svg_inside_their_frame(page):
    for image in re.findall(r"<svg role.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(image)
        _, _, width, height = map(float, root.get("viewBox").split())
        for mark in root.iter("circle"):
            assert 0 <= float(mark.get("cx")) <= width and 0 <= float(mark.get("cy")) <= height


def test_every_layer_is_shown(page):
    assert page.count('<rect class="dropped"') == 5
    assert page.count('<rect class="kept"') == 15


def test_heat_map(page):
    assert page.count('class="heat"') == 4 and "0, 1: 0.50" in page


def test_dense_alone_makes_a_report(tmp_path):
    folders.write(tmp_path, {"vqa": folders.exact([1.0, 0.0])}, folders.plan((), "dense"))
    runs = read_runs([tmp_path])
    assert "none of them is pruned" in report(compare(runs), runs)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_table_sorts_and_filters_in_a_browser(page, tmp_path):
    steps = """<script>
const first=()=>board.tBodies[0].rows[0].cells[0].textContent;
const head=[...board.tHead.rows[0].cells].find(h=>h.textContent==='overall').firstChild;
head.click();head.click();document.title=first();
filter.value='topology';filter.dispatchEvent(new Event('input'));
document.title+='|'+shown.textContent+'|'+head.parentElement.getAttribute('aria-sort');
</script></body>"""
    file = tmp_path / "page.html"
    file.write_text(page.replace("</body>", steps))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *flags, file.as_uri()], capture_output=True, text=True, check=True, timeout=300
    )
    assert "<title>&lt;b&gt;&amp;cosine 30 %|1 of 3 runs|ascending</title>" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_ticks_are_round_and_inside():
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(-3, 7, 4) == [-2.5, 0, 2.5, 5]
    assert ticks(1, 1) == [1]
