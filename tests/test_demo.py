"""The page docs/demo, in a browser, from a plain file server."""

import base64
import functools
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import io as image_io
from skimage.draw import disk
from skimage.measure import label

from keras_rpe.models import InstanceSegmenter

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "demo"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
SAMPLES = "hematoxylin", "galaxies", "coins"
MOST_SECONDS = 120


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """The page with what its build command puts beside it, and its address."""
    if not (BROWSER and DRIVER and shutil.which("npm")):
        pytest.skip("needs Chromium with its driver, and npm")
    pytest.importorskip("selenium", reason="needs selenium")
    folder = tmp_path_factory.mktemp("site") / "demo"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "built"))
    subprocess.run([sys.executable, folder / "build.py"], check=True)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_) -> None:
            """The page loads itself anew, and breaks what it was loading."""

    handler = functools.partial(Handler, directory=str(folder.parent))
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/demo/index.html"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def page(site, tmp_path_factory) -> Iterator[object]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1280,900"):
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    driver.get(site[1])
    until(driver, "return window.crossOriginIsolated && document.body.dataset.ready")
    yield driver
    driver.quit()


def until(driver, script: str):
    """What a script gives as soon as it is not false."""
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        found = driver.execute_script(script)
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {MOST_SECONDS} s: {script}; {status(driver)}")


def status(driver) -> str:
    return driver.execute_script("return document.getElementById('status').textContent")


def shown(driver) -> tuple[np.ndarray, float, int]:
    """Labels, diameter and count, when the page has them."""
    found = until(
        driver,
        """
        const { waiting, result } = window.demo.state();
        if (waiting || !result) return null;
        const bytes = new Uint8Array(result.labels.buffer);
        let text = "";
        for (let k = 0; k < bytes.length; k += 32768)
          text += String.fromCharCode(...bytes.subarray(k, k + 32768));
        return [btoa(text), result.height, result.width, result.diameter, result.count];
        """,
    )
    text, height, width, diameter, count = found
    labels = np.frombuffer(base64.b64decode(text), "<i4").reshape(height, width)
    return labels, diameter, count


def drop(driver, content: bytes, name: str) -> None:
    """Give the page a file, as dropping it does."""
    driver.execute_script(
        """
        const bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], arguments[1]));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        """,
        base64.b64encode(content).decode(),
        name,
    )


@pytest.fixture(scope="module")
def model() -> InstanceSegmenter:
    return InstanceSegmenter.from_preset("nuclei")


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES)
def test_instances_are_those_of_the_model(site, page, model, sample):
    image = image_io.imread(site[0] / "built" / f"{sample}.png")
    page.find_element("css selector", f"[data-sample={sample}]").click()
    time.sleep(0.5)
    labels, diameter, count = shown(page)
    expected = model.predict_instances(image)
    assert diameter == pytest.approx(expected.diameter, rel=1e-3)
    assert count == len(expected) > 5
    assert np.mean(labels == expected.labels) >= 0.99


@pytest.mark.slow
def test_downloads(page):
    page.find_element("css selector", "[data-sample=hematoxylin]").click()
    time.sleep(0.5)
    labels, _, count = shown(page)
    names = {kind: f"hematoxylin_{name}" for kind, name in FILES.items()}
    for kind in names:
        page.find_element("css selector", f"[data-download={kind}]").click()
    paths = {kind: page.downloads / name for kind, name in names.items()}
    end = time.monotonic() + 30
    while not all(path.exists() for path in paths.values()) and time.monotonic() < end:
        time.sleep(0.1)
    np.testing.assert_array_equal(image_io.imread(paths["labels"]), labels)
    table = np.genfromtxt(paths["table"], delimiter=",", names=True)
    np.testing.assert_array_equal(table["area_px"], np.bincount(labels.ravel())[1:])
    features = json.loads(paths["outlines"].read_text())["features"]
    assert len(features) == count


FILES = {"labels": "labels.png", "table": "instances.csv", "outlines": "outlines.geojson"}


@pytest.mark.slow
def test_a_given_diameter(site, page, model):
    image = image_io.imread(site[0] / "built" / "coins.png")
    page.find_element("css selector", "[data-sample=coins]").click()
    time.sleep(0.5)
    shown(page)
    page.execute_script(
        """
        document.getElementById("auto").click();
        const slider = document.getElementById("diameter");
        slider.value = 5;
        slider.dispatchEvent(new Event("input"));
        slider.dispatchEvent(new Event("change"));
        """
    )
    labels, diameter, _ = shown(page)
    page.execute_script("document.getElementById('auto').click()")
    assert diameter == pytest.approx(32)
    assert np.mean(labels == model.predict_instances(image, 32.0).labels) >= 0.99


@pytest.mark.slow
def test_what_is_no_image_gets_a_sentence(page):
    drop(page, b"no image", "notes.png")
    until(page, "return window.demo.state().wrong")
    assert status(page).startswith("notes.png is no image")
    huge = io.BytesIO()
    Image.new("L", (6000, 6000)).save(huge, "PNG")
    drop(page, huge.getvalue(), "huge.png")
    until(page, "return document.getElementById('status').textContent.includes('6000')")
    assert "2048" in status(page)
    page.find_element("css selector", "[data-sample=coins]").click()
    time.sleep(0.5)
    shown(page)  # It still works.


@pytest.mark.slow
def test_the_first_load_is_small(site):
    files = [file for file in site[0].rglob("*") if file.is_file()]
    loaded = [file for file in files if "node_modules" not in file.parts]
    assert 10e6 < sum(file.stat().st_size for file in loaded) < 25e6


RINGS = """
import { geojson, png } from "PAGE/outputs.js";
const [labels, width, height] = JSON.parse(process.argv[1]);
const count = Math.max(...labels);
const result = { labels, width, height, count, scores: Array(count).fill(0.5) };
console.log(geojson(result));
console.log(Buffer.from(await (await png(result)).arrayBuffer()).toString("base64"));
"""


def test_outlines_enclose_the_pixels_of_their_instance():
    node = shutil.which("node")
    if not node:
        pytest.skip("needs node")
    from shapely import contains_xy
    from shapely.geometry import shape

    random = np.random.default_rng(0)
    labels = label(random.random((14, 17)) < 0.55, connectivity=1).astype(int)
    ring = np.zeros((14, 17), bool)
    ring[disk((7, 8), 5)] = True
    labels[ring] = labels.max() + 1
    labels[disk((7, 8), 2)] = labels.max() + 1
    labels[0, 0] = labels[13, 16] = labels.max()  # In three parts.
    script = RINGS.replace("PAGE", PAGE.as_uri())
    content = json.dumps([labels.ravel().tolist(), 17, 14])
    command = [node, "--input-type=module", "-e", script, content]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    outlines, picture = done.stdout.splitlines()
    rows, columns = np.mgrid[:14, :17] + 0.5
    numbers = list(range(1, labels.max() + 1))
    features = json.loads(outlines)["features"]
    assert len(features) == len(numbers)
    for number, feature in zip(numbers, features):
        if not (labels == number).any():
            continue
        geometry = shape(feature["geometry"])
        assert geometry.is_valid
        np.testing.assert_array_equal(contains_xy(geometry, columns, rows), labels == number)
        assert geometry.area == (labels == number).sum()
    written = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    np.testing.assert_array_equal(written, labels)
