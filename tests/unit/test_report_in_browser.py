"""The page as a reader has it: in a browser, by keyboard, on a phone, on paper and without JavaScript."""

import itertools
import math
import re
import zlib

import pandas as pd
import pytest
from figure_frames import make_frames
from test_report import PNG, SVG

from entropy_mechanism.figures import fig02, fig11, style
from entropy_mechanism.report import FigureEntry, Report, TableEntry, build, comparison, headlines, judge_all

pytestmark = pytest.mark.browser
WIDE, PHONE = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything that is hard to place: wide figures and tables, long names, missing things."""
    frames = make_frames(seeds=(0, 1))
    runs = frames["runs"].assign(
        device="cpu", fingerprint="0123456789abcdef", entropy=0.1, accuracy=0.5, mlflow_run="0123456789abcdef" * 2
    )
    scores = pd.DataFrame({"Method": list("cab"), "Score": ["9.5 [1, 2]", "+10.25 [3, 4]", "−1.0 [−2, 0]"]})
    scores = scores.assign(**{f"a long benchmark name {i}": 0.123456 for i in range(12)})
    drawn = [style.render(module.draw(frames), "svg") for module in (fig02, fig11)]
    report = Report(
        experiment="tiny: " + "a-very-long-name-without-a-space-" * 4,
        created="2025-06-01 12:00",
        revision="0123456789abcdef0123456789abcdef01234567",
        claims=judge_all(frames, {"fig11": set(runs["run"]), "fig01": set(runs["run"])}),
        headlines=headlines(frames),
        figures=(
            FigureEntry("fig02", "In SVG", "One column.", drawn[0], {"SVG": "../figures/fig02.svg"}, runs=("a",)),
            FigureEntry("fig11", "In SVG", "Two columns.", drawn[1]),
            FigureEntry("fig03", "In PNG", "A picture.", PNG),
            FigureEntry("fig07", "Missing", "Not there.", None, note="out of date."),
            FigureEntry("fig09", "Small", "A rectangle.", SVG),
        ),
        tables=(
            TableEntry("table2", "Scores", "Caption.", scores),
            TableEntry("forms", "Old", "Caption.", None, note="out of date."),
        ),
        runs=runs,
        comparison=comparison(frames).assign(ours=[math.nan, 100.0, math.nan, *range(14)]),
        commands=("snakemake --config experiment=tiny " + "x" * 200,),
        environment={"Python": "3.11"},
    )
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(build(report), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def window(browser):
    """Every test begins with a wide light window."""
    browser.media()
    browser.size(*WIDE)


def outside(browser):
    """Addresses asked for that are neither the page nor inside it."""
    return [address for address in browser.requests if not address.startswith(("file:", "data:"))]


def test_loads_without_complaints_or_requests(browser, page):
    browser.open(page)
    assert browser.complaints == []
    assert browser.requests[0] == page.as_uri()
    assert [address for address in browser.requests[1:] if not address.startswith("data:")] == []


def test_a_request_or_an_error_would_be_noticed(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<link rel="icon" href="data:,"><img src="http://example.org/x.png"><script>lost()</script>')
    browser.open(page)
    assert outside(browser) == ["http://example.org/x.png"]
    assert any("lost" in complaint for complaint in browser.complaints)
    assert any("ERR_NAME_NOT_RESOLVED" in complaint for complaint in browser.complaints)


def test_every_figure_is_visible(browser, page):
    browser.open(page)
    sizes = browser.run(
        "[...document.querySelectorAll('figure img')].map(i => [i.complete, i.naturalWidth, i.width, i.height])"
    )
    assert len(sizes) == 4
    for complete, natural, width, height in sizes:
        assert complete
        assert min(natural, width, height) > 0
    files = browser.run(
        "[...document.querySelectorAll('figure img')].slice(0, 2).map(i => atob(i.src.split(',')[1]))"
    )
    inches = [float(re.search(r'width="([\d.]+)pt"', file)[1]) / 72 for file in files]
    widths = [width for _, _, width, _ in sizes[:2]]
    assert widths == [min(round(138 * width), 62 * 16) for width in inches]  # letters of one size in all of them


def column(browser, table, number):
    return browser.run(f"[...document.querySelectorAll('{table} tbody tr')].map(r => r.cells[{number}].innerText)")


def test_a_header_sorts_by_click_and_by_keyboard_numbers_as_numbers(browser, page):
    browser.open(page)
    second = "#table2 th:nth-child(2) button"
    browser.click(second)
    assert [text.split()[0] for text in column(browser, "#table2", 1)] == ["−1.0", "9.5", "+10.25"]
    assert browser.run("document.querySelector('#table2 th:nth-child(2)').ariaSort") == "ascending"
    browser.run(f"document.querySelector('{second}').focus()")
    browser.press("Enter", 13)
    assert [text.split()[0] for text in column(browser, "#table2", 1)] == ["+10.25", "9.5", "−1.0"]
    browser.click("#table2 th:nth-child(1) button")
    assert column(browser, "#table2", 0) == ["a", "b", "c"]
    assert browser.run("document.querySelectorAll('#table2 [aria-sort]').length") == 1


def test_claims_sort_by_verdict_and_missing_numbers_come_last(browser, page):
    browser.open(page)
    browser.click(".claims th:nth-child(5) button")
    verdicts = column(browser, ".claims", 4)
    order = ["agrees", "agrees in part", "disagrees", "not measured in this experiment"]
    assert verdicts == sorted(verdicts, key=order.index)
    for _ in range(2):
        browser.click("#paper th:nth-child(3) button")
        here = column(browser, "#paper", 2)
        assert 0 < here.count("–") < len(here)
        assert here[here.index("–") :] == ["–"] * here.count("–")


def test_a_figure_opens_by_click_and_by_keyboard_and_closes_with_escape(browser, page):
    browser.open(page)
    shown = "document.querySelector('dialog').open"
    browser.click("#fig11 a.zoom")
    assert browser.run(shown)
    assert browser.run("document.querySelector('dialog img').naturalWidth") > 0
    assert browser.run("document.querySelector('dialog img').alt").startswith("Fig 11: In SVG")
    wide = browser.run("document.querySelector('dialog img').width")
    assert wide > browser.run("document.querySelector('#fig11 img').width")
    browser.press("Escape", 27)
    assert not browser.run(shown)
    assert browser.run("document.activeElement === document.querySelector('#fig11 a.zoom')")
    browser.press("Enter", 13)
    assert browser.run(shown)
    browser.click("dialog .close")
    assert not browser.run(shown)
    assert browser.run("location.pathname").endswith("index.html")


def overflow(browser):
    """Elements that stick out of the page, other than inside a region that scrolls."""
    return browser.run(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, dialog') && e"
        ".getBoundingClientRect().right > document.documentElement.clientWidth + 0.5).map(e => e.outerHTML)"
    )


@pytest.mark.parametrize("width", [320, 360, 705, 1280])
def test_the_page_never_scrolls_sideways(browser, page, width):
    browser.size(width, 740, mobile=width < 500)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert overflow(browser) == []


def test_on_a_phone_claims_are_cards_without_a_scroll_bar(browser, page):
    browser.size(*PHONE, mobile=True)
    browser.open(page)
    wide, seen = browser.run("(e => [e.scrollWidth, e.clientWidth])(document.querySelector('.claims'))")
    assert wide <= seen
    assert browser.run("getComputedStyle(document.querySelector('.claims td')).display") == "block"


def test_on_paper_everything_is_within_the_page(browser, page, tmp_path):
    browser.size(680, 960)  # the width of A4 without margins
    browser.open(page)
    browser.media("print")
    assert browser.run("document.documentElement.scrollWidth") <= 680
    wide = "[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right)"
    assert max(browser.run(wide)) <= 680.5
    cut = "[...document.querySelectorAll('pre, .scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert browser.run(cut) == 0
    hidden = "['nav', '.links', 'dialog'].map(s => getComputedStyle(document.querySelector(s)).display)"
    assert browser.run(hidden) == ["none"] * 3
    browser.media("print", scheme="dark")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.pdf(tmp_path / "page.pdf")
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) > 3


def test_without_javascript_everything_is_there_and_a_figure_leads_to_its_file(browser, page):
    browser.open(page)
    text = browser.run("document.querySelector('main').innerText")
    browser.media(script=False)
    browser.open(page)
    browser.media()
    assert browser.run("document.querySelector('main').innerText") == text
    assert browser.run("document.querySelector('#fig02 a.zoom').getAttribute('href')") == "../figures/fig02.svg"


def test_headings_are_in_order_and_every_link_inside_leads_somewhere(browser, page):
    browser.open(page)
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    lost = (
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href'))"
        ".filter(h => !document.getElementById(h.slice(1)))"
    )
    assert browser.run(lost) == []
    names = "[...document.querySelectorAll('button, a, summary')].filter(e => !e.innerText.trim() && !e.ariaLabel"
    assert browser.run(f"{names} && !e.querySelector('img[alt]')).length") == 0


def luminance(colour):
    values = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_from_their_background(browser, page, scheme):
    browser.media(scheme=scheme)
    browser.open(page)
    pairs = browser.run(
        """[...document.querySelectorAll('body *')].filter(e => !e.closest('dialog') &&
             [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
          let under = e;
          const back = () => getComputedStyle(under || document.body).backgroundColor;
          while (under && back() === 'rgba(0, 0, 0, 0)') under = under.parentElement;
          return [getComputedStyle(e).color, back(), e.className];
        })"""
    )
    assert len(pairs) > 100
    for front, back, name in pairs:
        light, dark = sorted((luminance(front), luminance(back)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (front, back, name)


def test_the_page_is_drawn_in_both_schemes(browser, page, tmp_path):
    browser.open(page)
    seen = set()
    for scheme in ("light", "dark"):
        browser.media(scheme=scheme)
        browser.screenshot(tmp_path / "page.png")
        seen.add(zlib.crc32((tmp_path / "page.png").read_bytes()))
    assert len(seen) == 2
