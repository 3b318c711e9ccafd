"""A report in a headless Chromium: it steps, prints and turns dark, and asks for nothing."""

import base64
import re

import numpy as np
import pytest
from browser import Browser, Page
from test_report import CONTENT

from scripts.assessment.observations import OBSERVED
from scripts.phantom import make_phantom
from scripts.report import view, write_report


@pytest.fixture(scope="module")
def scan():
    phantom = make_phantom(seed=2, shape=(96, 72, 40), spacing=(3.6, 3.6, 6.0))
    return view(phantom.image.astype(np.float32), [(phantom.label > 0).astype(np.uint8)], phantom.affine)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_an_error_or_a_request_and_steps_through_it(scan, tmp_path, browser, width):
    path = tmp_path / "r.html"
    content = {**CONTENT, "name": "long_" * 40, "about": {"weights": "9f2c4e0c" * 8}, "reasons": ["Word " * 40]}
    write_report(path, scan, **content)
    browser.open(path, width, 800)
    assert browser.js("document.documentElement.scrollWidth") <= width
    slices = [index for index, *_ in Page(path).slices("axial")]
    href = "document.querySelector('.axial use').getAttribute('href')"
    output = "document.querySelector('.axial output').textContent"
    line = "document.querySelector('.coronal line[data-plane=axial]').getBoundingClientRect().top"
    before = browser.js(line)
    browser.js(
        "const slider = document.querySelector('.axial input'); slider.value = 3;"
        "slider.dispatchEvent(new Event('input'))"
    )
    assert browser.js(href) == f"#axial-{slices[3]}" and browser.js(output).startswith(f"{slices[3] + 1} of 40")
    assert browser.js(line) < before
    # a click on the coronal picture, a quarter of its height from below, goes to that axial slice
    browser.js(
        "const box = document.querySelector('.coronal svg').getBoundingClientRect();"
        "document.querySelector('.coronal svg').dispatchEvent(new MouseEvent('click', "
        "{clientX: box.left + box.width / 2, clientY: box.top + 0.74 * box.height}))"
    )
    assert browser.js(href) == f"#axial-{slices[int(0.74 * len(slices))]}"
    browser.js("document.querySelector('.levels button').click()")
    assert browser.js(href) == "#axial-" + str(
        next(i for i, _, inside, _ in Page(path).slices("axial") if inside.any())
    )
    display = "getComputedStyle(document.querySelector('.contour')).display"
    assert browser.js(display) != "none"
    browser.js("document.getElementById('contours').click()")
    assert browser.js(display) == "none"
    requests = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert requests[0] == path.as_uri() and all(url.startswith("data:image/jpeg;") for url in requests[1:])
    wrong = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert not [event for event in browser.events if event["method"] in wrong]


def test_the_arrow_keys_step_through_it_and_a_dark_screen_gets_a_dark_page(scan, tmp_path, browser):
    path = tmp_path / "r.html"
    write_report(path, scan, **CONTENT)
    grounds = []
    for scheme in ("light", "dark"):
        browser.open(path, 1280, 800, **{"prefers-color-scheme": scheme})
        grounds.append(browser.js("getComputedStyle(document.body).backgroundColor"))
    bright, dark = (sum(map(int, re.findall(r"\d+", ground))) for ground in grounds)
    assert bright > 600 and dark < 120
    browser.js("document.querySelector('.axial input').focus()")
    before = int(browser.js("document.querySelector('.axial input').value"))
    for kind in ("rawKeyDown", "keyUp"):
        browser("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    index = [index for index, *_ in Page(path).slices("axial")][before + 1]
    assert browser.js("document.querySelector('.axial use').getAttribute('href')") == f"#axial-{index}"


def test_it_prints_on_one_page_of_a4(scan, tmp_path, browser):
    """With as much as a report usually says: all that the verdict goes by, reasons, notes."""
    observed = dict.fromkeys(OBSERVED, 1.0)
    many = {"measures": {**CONTENT["measures"], **observed}, "reasons": ["Word " * 20] * 3, "notes": ["Word " * 20] * 2}
    write_report(tmp_path / "r.html", scan, **{**CONTENT, **many, "about": {"weights": "9f2c4e0c" * 8}})
    browser.open(tmp_path / "r.html", 1280, 800)
    pdf = base64.b64decode(browser("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    (width, height) = map(float, re.search(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", pdf).groups())
    assert (width, height) == (pytest.approx(595.3, abs=1), pytest.approx(841.9, abs=1))  # A4, points
    assert len(re.findall(rb"/Type ?/Page\b", pdf)) == 1


def test_the_browser_forbids_what_a_report_must_not_do(scan, tmp_path, browser):
    """The check above can fail: a page that asks for something, or whose script was changed, is noticed."""
    path = tmp_path / "r.html"
    write_report(path, scan, **CONTENT)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</main>", "<img src='other.png'><script>document.title = 'run'</script></main>"))
    browser.open(path, 1280, 800)
    refused = [e["params"]["entry"]["text"] for e in browser.events if e["method"] == "Log.entryAdded"]
    assert any("other.png" in line for line in refused) and any("script" in line for line in refused)
    assert browser.js("document.title") == "Liver in CT: study 7"
