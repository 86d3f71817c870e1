"""The page of a served model in headless Chromium, used as a person would."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from keras_unet.prediction.load import load

# On a busy machine Chromium may answer too late, which says nothing about the page.
pytestmark = pytest.mark.flaky(reruns=3, reruns_delay=5, only_rerun="TimeoutException")

NAMES = {"<b>.png": "PNG", "cells.jpg": "JPEG"}


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
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


@pytest.fixture(scope="module")
def address(run_server, loaded):
    """Address of the page."""
    from keras_unet.serving.models import Model

    model = Model("cells", {1: loaded.versions[1]})
    with run_server(model) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def files(cells, tmp_path_factory):
    """Files of cells, by name, and one that is no image."""
    folder = tmp_path_factory.mktemp("files")
    image = tifffile.imread(cells / "images" / "c3.tif").astype(np.float64)
    for name, kind in NAMES.items():
        Image.fromarray((255 * image / image.max()).astype(np.uint8)).save(folder / name, kind)
    (folder / "text.png").write_text("no image")
    return folder


def status_after(browser, path):
    """Chooses a file, and returns what the page says of it."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.find_element("id", "file").send_keys(str(path))
    status = browser.find_element("id", "status")
    WebDriverWait(browser, 60).until(lambda _: status.text and "Segmenting" not in status.text)
    return status.text


def pixels_of(browser, name):
    """Pixels of a picture of the page, drawn to a canvas: RGBA."""
    script = """
        const image = document.getElementById(arguments[0]), done = arguments[1];
        image.decode().then(() => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
          canvas.getContext("2d").drawImage(image, 0, 0);
          done(canvas.toDataURL());
        });"""
    uri = browser.execute_async_script(script, name)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def severe(browser):
    return [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_chosen_and_its_cells_are_shown(browser, address, files, trained, name):
    browser.get(address)
    severe(browser)
    told = status_after(browser, files / name)
    with Image.open(files / name) as image:
        labels = load(trained).segment(np.asarray(image))
    assert told == f"{labels.max()} cells"
    overlay = pixels_of(browser, "overlay")
    assert np.mean((overlay[..., 3] > 0) != (labels > 0)) < 1e-3
    assert pixels_of(browser, "image").shape[:2] == labels.shape
    assert browser.find_element("id", "caption").text.startswith(f"{name}, 96 ")
    assert browser.find_element("id", "download").get_attribute("download").endswith("_labels.png")
    assert severe(browser) == []


def test_nothing_is_asked_of_another_server(browser, address, files):
    browser.get_log("performance")
    browser.get(address)
    status_after(browser, files / "cells.jpg")
    sent = [line["message"] for line in browser.get_log("performance")]
    sent = [
        line for line in sent if '"Network.requestWillBeSent"' in line and '"url":"http' in line
    ]
    assert sent
    assert all(f'"url":"{address}' in line for line in sent)


def test_names_of_files_are_text(browser, address, files):
    browser.get(address)
    status_after(browser, files / "<b>.png")
    assert browser.execute_script("return document.querySelectorAll('b').length") == 0


def test_a_file_that_is_refused_is_said_with_the_reason(browser, address, files):
    browser.get(address)
    told = status_after(browser, files / "text.png")
    assert told.startswith("text.png: ")
    assert "must hold PNG or JPEG files only" in told
    assert not browser.find_element("id", "result").is_displayed()


def test_an_image_is_dropped(browser, address, files):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(address)
    content = base64.b64encode((files / "cells.jpg").read_bytes()).decode()
    script = """
        const bytes = Uint8Array.from(atob(arguments[0]), letter => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
        document.getElementById("drop").dispatchEvent(
          new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));"""
    browser.execute_script(script, content)
    status = browser.find_element("id", "status")
    WebDriverWait(browser, 60).until(lambda _: status.text.endswith(" cells"))


def test_the_keyboard_reaches_everything(browser, address, files):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(address)
    status_after(browser, files / "cells.jpg")
    browser.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(4):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.add(browser.switch_to.active_element.get_attribute("id"))
    assert reached >= {"file", "opacity", "download"}
    browser.find_element("id", "opacity").send_keys(Keys.HOME)
    script = "return getComputedStyle(document.getElementById('overlay')).opacity"
    assert browser.execute_script(script) == "0"


def test_light_and_dark(browser, address):
    found = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(address)
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {})
        with Image.open(io.BytesIO(base64.b64decode(taken["data"]))) as image:
            found[scheme] = np.asarray(image.convert("L"))[2, 2]
    assert found["light"] > 240
    assert found["dark"] < 40


@pytest.mark.parametrize("width", [320, 1100])
def test_nothing_is_wider_than_the_window(browser, address, files, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(address)
    status_after(browser, files / "cells.jpg")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
