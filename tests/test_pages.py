"""Reports in a real Chromium: nothing is complained of, nothing is cut off."""

import pytest

from pxy.report import page

import browser
import test_report_probe

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    browser.program() is None,
    reason="there is no Chromium; on Debian: apt-get install chromium",
  ),
]
reports, made = test_report_probe.reports, test_report_probe.made

WIDER = """
  [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.wide, svg, pre'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.tagName + ' ' + e.className)
"""
"""What reaches out of the page; tables and code scroll within themselves."""
CUT = """
  [...document.querySelectorAll('svg')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => {
      const box = text.getBoundingClientRect();
      return box.left < frame.left - 1 || box.right > frame.right + 1
        || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
    }).map(text => svg.getAttribute('aria-label') + ': ' + text.textContent);
  })
"""
UNREADABLE = """
  [...document.querySelectorAll('p, td, th, h2, svg text')].filter(e => {
    const paint = getComputedStyle(e);
    const ink = e.tagName == 'text' ? paint.fill : paint.color;
    return ink == getComputedStyle(document.body).backgroundColor;
  }).map(e => e.textContent)
"""


@pytest.fixture(scope="module")
def tab():
  with browser.opened() as found:
    yield found


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
  several = page.write(made, tmp_path_factory.mktemp("both"))
  return {"one run": made[0] / "report.html", "several runs": several}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["one run", "several runs"])
def test_a_report_fits(name, width, tab, pages):
  for dark in (False, True):
    tab.show(pages[name], width, dark=dark)
    assert tab.complaints == []
    assert tab.value("document.querySelectorAll('svg').length") > 10
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value(WIDER) == [], f"cut off at {width} pixels"
    assert tab.value(CUT) == [], f"labels that are cut off at {width} pixels"
    assert tab.value(UNREADABLE) == [], "ink in the colour of the paper"


def test_what_is_wrong_with_a_page_is_seen(tab, tmp_path):
  path = tmp_path / "bad.html"
  path.write_text(
    "<!doctype html><body style='background: #fff'>"
    "<meta name=viewport content='width=device-width'>"
    "<p style='width: 2000px; color: #fff'>long</p><script>missing()</script>"
    "<svg width=50 height=20 aria-label=x><text x=45 y=10>label</text></svg>"
  )
  tab.show(path, 1280)
  assert any("missing" in text for text in tab.complaints)
  assert tab.value("document.documentElement.scrollWidth") > 1280
  assert tab.value(WIDER) and tab.value(UNREADABLE) == ["long"]
  assert tab.value(CUT) == ["x: label"]
  path.write_text(
    "<!doctype html><meta http-equiv=Content-Security-Policy"
    " content=\"default-src 'none'\"><img src=x.png>"
  )
  tab.show(path, 390)
  assert any("Content Security Policy" in text for text in tab.complaints)
