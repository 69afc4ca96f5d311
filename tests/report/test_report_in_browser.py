"""The report in a real Chromium: silent, without requests, usable by keys, on a phone and in the dark."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pages
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]
WIDTHS = {"phone": 360, "desk": 1280}


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
    assert page.locator(f"svg.{shown}:visible").count() == page.locator(f"svg.{other}").count() == 5
    assert page.locator(f"svg.{other}:visible").count() == 0
    heights = page.eval_on_selector_all(
        "svg.wider text, svg.narrow text",
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
    return page.locator("#board tbody tr:visible th").first.text_content()


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
            "#board tbody tr", f"all => all.map(row => parseFloat(row.cells[{place}].dataset.value))"
        )
        assert len(keys) == 34 and keys == sorted(keys, reverse=True), name


def test_the_table_filters_and_says_how_many_are_left(opened):
    page = opened()
    page.get_by_label("Show runs with").fill("topology 40")
    assert first(page) == "topology 40 %" and page.locator("#board tbody tr:visible").count() == 1
    assert page.locator("#shown").text_content() == "1 of 34 runs"
    page.get_by_label("Show runs with").fill("")
    assert page.locator("#board tbody tr:visible").count() == 34


def test_the_legend_hides_a_series_everywhere(opened):
    page = opened()
    button = page.locator("#retention ~ ul button", has_text="topology")
    number = button.get_attribute("data-series")
    button.press("Space")
    assert page.locator(f"g[data-series='{number}']:visible").count() == 0
    pressed = page.eval_on_selector_all(
        f"button[data-series='{number}']", "all => all.map(b => b.getAttribute('aria-pressed'))"
    )
    assert set(pressed) == {"false"} and len(pressed) == 3
    button.press("Space")
    assert page.locator(f"svg.wider g[data-series='{number}']:visible").count() > 0


def test_one_press_leaves_nothing_but_the_chosen_series(opened):
    page = opened()
    every = page.locator("#retention ~ ul button[data-every]")
    every.click()
    assert page.locator("g[data-series]:visible").count() == 0
    page.locator("#retention ~ ul button", has_text="topology").click()
    assert page.locator("#retention ~ svg g[data-series]:visible").count() == 1
    assert every.get_attribute("aria-pressed") == "false"
    every.click()
    assert page.locator("#retention ~ svg.wider g[data-series]:visible").count() == len(pages.CRITERIA)


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
