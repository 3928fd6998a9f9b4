"""The report in a browser: nothing goes wrong, everything is seen, nothing is asked for."""

import pytest
from _browser import Page, browser
from _reported import write
from made_rows import whole_run
from PIL import Image

from gradbench.report.page import open_runs, report

pytestmark = pytest.mark.skipif(
    browser() is None, reason="no chromium or chrome is installed to open the report with"
)
SIZES = """
[...document.querySelectorAll('figure img, figure svg.chart')].map(one => {
  const box = one.getBoundingClientRect();
  return [box.width, box.height, one.tagName !== 'IMG' || (one.complete && one.naturalWidth > 0)];
})
"""
BEYOND = """
[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll *')
  && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(one => one.tagName + ' ' + one.className)
"""
INK = """
['--page', '--ink', '--c0', '--c1', '--c2', '--c3', '--c4', '--c5', '--c6', '--muted', '--link']
  .map(name => getComputedStyle(document.documentElement).getPropertyValue(name).trim())
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    runs = []
    for seed in ("0", "1"):
        runs.append(write(folder / f"seed{seed}", whole_run(), seeds=(seed,)))
        (runs[-1] / "figures").mkdir()
        for name in ("roc", "scores_msp", "gradient_profile"):
            picture = Image.effect_noise((1440, 600), 80).convert("RGB")
            picture.save(runs[-1] / "figures" / f"{name}.png")
    place = folder / "report.html"
    place.write_text(report(open_runs(runs), "gradbench report"), encoding="utf-8")
    return place


@pytest.fixture(scope="module", params=[False, True], ids=["light", "dark"])
def page(request, path):
    with Page(path, dark=request.param) as opened:
        yield opened


def test_nothing_goes_wrong_and_nothing_is_asked_for(page):
    assert page.ask("document.readyState") == "complete"
    assert page.faults == []
    assert page.asked == []


@pytest.mark.parametrize("width", [390, 1280])
def test_figures_are_seen_and_the_page_is_no_wider_than_the_screen(page, width):
    page.resize(width, 844)
    sizes = page.ask(SIZES)
    assert len(sizes) == 2 * 9  # levels, five charts of costs, three pictures
    assert all(wide > 100 and high > 80 and whole for wide, high, whole in sizes)
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    assert page.ask(BEYOND) == []


def test_tables_have_headers(page):
    bare = "[...document.querySelectorAll('table')].filter(t => !t.querySelector('th')).length"
    assert page.ask("document.querySelectorAll('table').length") > 10
    assert page.ask(bare) == 0


def test_text_and_lines_stand_out_from_the_page(page):
    ground, ink, *others = map(_luminance, page.ask(INK))
    dark = page.ask("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (ground < ink) == dark
    assert _contrast(ground, ink) > 12
    *lines, muted, link = others
    assert min(_contrast(ground, muted), _contrast(ground, link)) > 4.5
    assert min(_contrast(ground, line) for line in lines) > 3


def test_it_can_be_printed(page):
    data = page.printed()
    assert data.startswith(b"%PDF")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") >= 3


def _luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb, as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear))


def _contrast(one: float, other: float) -> float:
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)
