"""The report in a real Chromium: silent, without requests, usable by keys, on a phone and in the dark."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pages
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]
WIDTHS = {"phone": 360, "desk": 1280, "wide": 1400}
LINES = 1 + 3 * len(pages.CRITERIA)
RUNS = LINES + 3 * 2
FIGURES = 6
"""Those with a drawing for each width."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.html").write_text(pages.page(folder / "runs"), encoding="utf-8")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page: opened(width=1280, scheme="light") -> it, with what it said and asked for."""
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_silent_alone_and_not_wider_than_the_screen(opened, address, width):
    page = opened(width)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [address]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_one_image_a_chart_is_shown_and_its_text_is_legible(opened, width):
    page = opened(width)
    shown, other = ("narrow", "wider") if width < 700 else ("wider", "narrow")
    assert page.locator(f".{shown} svg:visible").count() == page.locator(f".{other} svg").count() == FIGURES
    assert page.locator(f".{other} svg:visible").count() == 0
    heights = page.eval_on_selector_all(
        ".wider svg text, .narrow svg text",
        "all => all.map(t => t.getBoundingClientRect().height).filter(height => height > 0)",
    )
    assert min(heights) > 8


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_no_label_is_clipped_or_covers_another(opened, width):
    """Boxes of all texts of an image, in its own frame and apart from each other."""
    problems = opened(width).evaluate(
        """() => [...document.querySelectorAll('main svg[role=img]')].flatMap(s => {
          if (!s.clientWidth) return [];
          const frame = s.getBoundingClientRect();
          const boxes = [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
          const out = boxes.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1
            || b.top < frame.top - 2 || b.bottom > frame.bottom + 2).map(([text]) => 'clipped: ' + text);
          const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
          const over = boxes.flatMap(([one, a], i) =>
            boxes.slice(i + 1).filter(([, b]) => meet(a, b)).map(([two]) => one + ' over ' + two));
          return [...out, ...over];
        })"""
    )
    assert problems == []


def first(page) -> str:
    return page.locator("#board tbody:visible tr:visible th").first.text_content()


def test_the_table_sorts_by_keys_and_says_so(opened):
    page = opened()
    assert first(page) == "dense"
    button = page.get_by_role("button", name="overall")
    button.focus()
    page.keyboard.press("Enter")
    best = first(page)
    page.keyboard.press("Enter")
    assert first(page) != best
    states = page.eval_on_selector_all("#board thead th", "all => all.map(h => h.getAttribute('aria-sort'))")
    assert states.count("ascending") == 1 and states.count("none") == len(states) - 1
    page.get_by_role("button", name="p against dense").click()
    assert page.locator("#board tbody tr th").last.text_content() == "dense"  # it has no p-value


def test_numbers_are_sorted_as_numbers(opened):
    page = opened()
    for name in ("ms an answer", "retention", "dropped layers"):
        page.get_by_role("button", name=name, exact=True).click()
        place = page.locator("#board thead th").all_text_contents().index(name)
        keys = page.eval_on_selector_all(
            "#board tbody", f"all => all.map(body => parseFloat(body.rows[0].cells[{place}].dataset.value))"
        )
        assert len(keys) == LINES and keys == sorted(keys, reverse=True), name


def test_the_table_filters_and_says_how_many_are_left(opened):
    page = opened()
    page.get_by_label("Show runs with").fill("topology 40")
    assert first(page).startswith("topology 40 %") and page.locator("#board tbody:visible").count() == 1
    assert page.locator("#shown").text_content() == f"1 of {LINES} lines"
    page.get_by_label("Show runs with").fill("")
    assert page.locator("#board tbody:visible").count() == LINES


def test_the_leaderboard_fits_a_wide_screen_and_its_first_column_stays(opened):
    page = opened(WIDTHS["wide"])
    frame = page.locator("div[role=group]", has=page.locator("#board"))
    assert frame.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.set_viewport_size({"width": WIDTHS["phone"], "height": 800})
    before = page.locator("#board tbody th").first.bounding_box()["x"]
    frame.evaluate("box => box.scrollTo(200, 0)")
    assert frame.evaluate("box => box.scrollLeft") == 200
    assert page.locator("#board tbody th").first.bounding_box()["x"] == before


def test_tasks_are_shown_on_request(opened):
    page = opened()
    head = page.locator("#board thead th", has_text="vqa")
    assert not head.is_visible()
    page.get_by_label("tasks").press("Space")
    assert head.is_visible()


def test_seeds_unfold_by_a_click_or_a_key_and_stay_below_their_mean(opened):
    page = opened()
    assert page.locator("#board tr.seed:visible").count() == 0
    line = page.locator("#board tbody", has_text="topology 20 %").first
    button = line.locator("button.seeds")
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    seeds = line.locator("tr.seed:visible th").all_text_contents()
    assert sorted(seeds) == [f"topology 20 % seed {seed}" for seed in range(3)]
    page.get_by_role("button", name="retention", exact=True).click()
    assert line.locator("tr.seed:visible").count() == 3
    button.click()
    assert page.locator("#board tr.seed:visible").count() == 0
    page.get_by_role("button", name="all seeds").click()
    assert page.locator("#board tbody tr:visible").count() == RUNS + 3


def test_the_legend_hides_a_series_everywhere(opened):
    page = opened()
    button = page.locator("#quality ~ .figures .legend").first.get_by_role("button", name="topology")
    number = button.get_attribute("data-series")
    button.press("Space")
    assert page.locator(f"g[data-series='{number}']:visible").count() == 0
    pressed = page.eval_on_selector_all(
        f"button[data-series='{number}']", "all => all.map(b => b.getAttribute('aria-pressed'))"
    )
    assert set(pressed) == {"false"} and len(pressed) == 2
    button.press("Space")
    assert page.locator(f".wider g[data-series='{number}']:visible").count() > 0


def test_one_press_leaves_nothing_but_the_chosen_series(opened):
    page = opened()
    figure = page.locator("figure", has=page.locator("h3", has_text="Quality against sparsity"))
    every = figure.locator("button[data-every]")
    every.click()
    assert page.locator("g[data-series]:visible").count() == 0
    figure.get_by_role("button", name="topology").click()
    assert figure.locator(".wider > svg > g[data-series]:visible").count() == 2  # the line and its name
    assert every.get_attribute("aria-pressed") == "false"
    every.click()
    assert figure.locator(".wider > svg > g[data-series]:visible").count() == 2 * len(pages.CRITERIA)


def test_a_figure_is_saved_as_svg_in_light_colors_that_stand_by_themselves(opened):
    page = opened(scheme="dark")
    button = page.get_by_role("button", name="Save Quality against sparsity as SVG")
    with page.expect_download() as download:
        button.press("Enter")
    assert download.value.suggested_filename == "Quality_against_sparsity.svg"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "class=" not in text and "var(" not in text
    texts = [t for t in root.iter("{http://www.w3.org/2000/svg}text") if t.text == "100"]
    assert texts[0].get("fill") == "rgb(26, 28, 32)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"


def test_the_numbers_of_a_figure_are_saved_as_csv(opened):
    page = opened()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save Dropped layers as CSV").click()
    rows = list(csv.reader(Path(download.value.path()).read_text(encoding="utf-8").splitlines()))
    assert rows[0][:2] == ["run", "dropped by every seed"] and len(rows) == LINES
    assert all(len(row) == 4 for row in rows)
    assert page.said == []


def test_no_cell_of_a_saved_table_is_a_formula(opened):
    texts = ["=1+1", "+1|2", "-x", "@a", "-3.4", "+2", "topology"]
    assert opened().evaluate("(texts) => texts.map(harmless)", texts) == [
        *("'=1+1", "'+1|2", "'-x", "'@a"),
        *("-3.4", "+2", "topology"),
    ]


def test_lost_answers_are_shown_with_their_picture_and_by_run(opened):
    page = opened()
    shown = page.locator(".card:visible")
    assert 0 < shown.count() <= 6
    picture = shown.first.locator("img")
    assert picture.get_attribute("src").startswith("data:image/webp;base64,")
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 2
    run = page.locator("#lost option").nth(1).text_content()
    page.get_by_label("Show what is lost by").select_option(run)
    cards = page.locator(".card:visible")
    criterion, count = run.rsplit(", ", 1)
    assert cards.count() > 0
    for card in cards.all():
        place = card.locator("thead th").all_text_contents().index(count.removesuffix(" layers"))
        row = card.locator("tbody tr", has=page.locator("th", has_text=criterion)).first
        assert row.locator("td").nth(place - 1).text_content() == "✗\u00a0no"


def test_on_paper_it_is_light_and_has_no_controls(opened):
    page = opened(scheme="dark")
    page.emulate_media(media="print")
    assert (
        page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bg').trim()") == "#fff"
    )
    assert page.locator("nav:visible, .tools:visible, #filter:visible").count() == 0
    assert page.locator(".wider svg:visible").count() == FIGURES and len(page.pdf()) > 10_000


@pytest.mark.parametrize(("width", "scheme"), [(WIDTHS["phone"], "dark"), (WIDTHS["desk"], "light")])
def test_axe_finds_nothing(opened, tmp_path, width, scheme):
    """axe-core knows the rules of WCAG: names, roles, contrast, structure; a few rows of each table do."""
    import axe_playwright_python

    page = opened(width, scheme)
    page.set_content(pages.page(tmp_path, pages.CRITERIA[-2:]))
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({exclude: [['tr:nth-child(n + 3)']]}, {resultTypes: ['violations']})")
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]] == []


def test_it_is_dark_in_the_dark(opened):
    colors = {
        s: opened(1280, s).evaluate("getComputedStyle(document.body).backgroundColor")
        for s in ("light", "dark")
    }
    assert colors == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}
