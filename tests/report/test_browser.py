"""A report opened and clicked through in headless Chromium, as a person would."""

from __future__ import annotations

import base64
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_unet.architecture import Architecture
from keras_unet.report.charts import curves_svg, network_svg
from keras_unet.report.page import Page, ShownImage, lossless_uri, render
from keras_unet.report.tables import Table

# On a busy machine Chromium may answer too late, which says nothing about the page.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5, only_rerun="TimeoutException")

EVIL = "<b>.tif"
LAYERS = {
    "image": (90, 90, 90),
    "truth": (200, 0, 0),
    "prediction": (0, 200, 0),
    "weight map": (0, 0, 200),
}


def plain(colour):
    return lossless_uri(np.full((60, 80, 3), colour, np.uint8))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with two images in plain colours, the first with markup in its name."""
    layers = {title: plain(colour) for title, colour in LAYERS.items()}
    page = Page(
        title="Run",
        summary="A run.",
        warnings=["odd"],
        network=network_svg(Architecture(), 572),
        curves=[curves_svg("loss", {"": [(1, 3.0), (2, 2.0), (3, 1.0)]})],
        images=[ShownImage(EVIL, "SEG 0.5", layers), ShownImage("a" * 70, "", layers)],
        worst=[ShownImage(EVIL, "IoU 0.5", {"outlines": plain((1, 2, 3))})],
        tables=[Table("Scores", ["image", "IoU"], [[EVIL, "0.5"], ["a" * 70, "0.75"]])],
        command=f"keras-unet train {'folder/' * 20} --run RUN --depth 4 --tile 572",
        next_steps={"Predict": "keras-unet predict RUN IMAGES --out PREDICTIONS"},
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(page), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; it asks nothing of a network by itself."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield started
    started.quit()


def look(browser, path, *, width=1100, scheme="light"):
    """Opens a page in a window of so many pixels, in a colour scheme."""
    media_features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media_features})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(path.as_uri())


def screenshot(browser, path):
    """Keeps a picture of the whole page, and gives it back."""
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(taken["data"]))
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def css(browser, selector, name):
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    return browser.execute_script(script, selector, name)


def visible(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.checkVisibility())"
    return browser.execute_script(script, selector)


def colour_at(browser, share, tmp_path):
    """Reads the colour of the frame at a share of its width, half its height down."""
    script = (
        "const frame = document.querySelector('figure.shown .frame').getBoundingClientRect();"
        "return [frame.left, frame.top + scrollY, frame.width, frame.height]"
    )
    left, top, width, height = browser.execute_script(script)
    picture = screenshot(browser, tmp_path / "page.png")
    return tuple(picture[int(top + height / 2), int(left + share * width)].tolist())


def test_the_page_runs_without_an_error_and_asks_no_network(browser, page):
    look(browser, page)
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    requests = [
        line["message"]
        for line in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in line["message"]
    ]
    assert not [one for one in requests if '"url":"http' in one]


def test_names_are_text(browser, page):
    look(browser, page)
    assert browser.execute_script("return document.querySelectorAll('b').length") == 0
    assert browser.execute_script("return document.querySelector('option').text") == EVIL


def test_the_layers_are_clicked_through(browser, page, tmp_path):
    look(browser, page)
    buttons = browser.find_elements("css selector", ".layers label")
    for button, (title, colour) in zip(buttons, list(LAYERS.items())[1:], strict=True):
        button.click()
        assert browser.find_element("id", "over").text == title
        assert colour_at(browser, 0.9, tmp_path) == colour
        assert colour_at(browser, 0.1, tmp_path) == LAYERS["image"]


def test_the_slider_uncovers_the_image(browser, page, tmp_path):
    look(browser, page)
    slider = browser.find_element("id", "cut")
    slider.send_keys("\ue010")  # End
    assert colour_at(browser, 0.9, tmp_path) == LAYERS["image"]
    slider.send_keys("\ue011")  # Home
    assert colour_at(browser, 0.1, tmp_path) == LAYERS["truth"]


def test_a_drag_over_the_picture_moves_the_slider(browser, page):
    from selenium.webdriver import ActionChains

    look(browser, page)
    frame = browser.find_element("css selector", "figure.shown .frame")
    quarter = -frame.size["width"] // 4
    actions = ActionChains(browser).move_to_element(frame).click_and_hold()
    actions.move_by_offset(quarter, 0).release().perform()
    value = browser.execute_script("return Number(document.getElementById('cut').value)")
    assert value == pytest.approx(25, abs=2)


def test_the_images_are_gone_through(browser, page):
    look(browser, page)
    assert visible(browser, "#viewer figure") == [True, False]
    browser.find_element("id", "after").click()
    assert visible(browser, "#viewer figure") == [False, True]
    browser.find_element("id", "after").click()
    assert visible(browser, "#viewer figure") == [True, False]
    browser.find_element("id", "before").click()
    assert visible(browser, "#viewer figure") == [False, True]


def test_light_and_dark(browser, page, tmp_path):
    light, dark = [], []
    for scheme, found in (("light", light), ("dark", dark)):
        look(browser, page, scheme=scheme)
        found.append(screenshot(browser, tmp_path / f"{scheme}.png")[2, 2].mean())
        found.append(css(browser, "body", "color"))
    assert light[0] > 240
    assert dark[0] < 40
    assert light[1] != dark[1]


@pytest.mark.parametrize("width", [320, 390, 800, 1100])
def test_nothing_is_wider_than_the_window(browser, page, width):
    look(browser, page, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


# Chromium may turn scripts off only after it has begun to load the page.
@pytest.mark.flaky(reruns=3, reruns_delay=5)
def test_without_scripts_all_layers_are_there(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        look(browser, page)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert all(visible(browser, "#viewer .layer"))
    assert not any(visible(browser, ".controls"))


def test_the_report_of_a_training_opens(browser, trained):
    look(browser, trained / "report.html")
    assert browser.title == f"Run {trained.name}"
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    sizes = "return [...document.images].map(image => image.naturalWidth)"
    assert min(browser.execute_script(sizes)) > 0
