"""Time the page docs/demo in Chromium beside onnxruntime in Python, by turns, on one image of 512².

    pip install ".[browser,onnx]" && python docs/demo/build.py
    python benchmarks/browser.py

Both run the same file, with all cores: the sample `hematoxylin`, at the diameter that the model
finds. The page's seconds are its own, from pixels to labels. It must take at most three times as
long, and its first load must be under 25 MB. Chromium and its driver must be on the path.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime
from selenium import webdriver
from skimage import io

PAGE = Path(__file__).parents[1] / "docs" / "demo"
SAMPLE = "hematoxylin"
TURNS = 7
ASK = """
const [sample, done] = arguments;
const before = window.demo.state().result;
document.querySelector(`[data-sample=${sample}]`).click();
const look = () => {
  const { result } = window.demo.state();
  if (result && result !== before) done([result.seconds, result.count]);
  else setTimeout(look, 50);
};
look();
"""


class Quiet(SimpleHTTPRequestHandler):
    """A plain file server that writes nothing."""

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """Does not mind that the page loads itself anew."""

    def handle_error(self, *_: object) -> None:
        """Write nothing."""


def opened(port: int) -> webdriver.Chrome:
    """The page, as soon as its model is loaded and it may have threads."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless=new", "--no-sandbox"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    driver.get(f"http://127.0.0.1:{port}/index.html")
    while not driver.execute_script("return crossOriginIsolated && document.body.dataset.ready"):
        time.sleep(0.2)
    return driver


def main() -> None:
    """Print the table."""
    server = Server(("127.0.0.1", 0), functools.partial(Quiet, directory=str(PAGE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    image = io.imread(PAGE / "built" / f"{SAMPLE}.png")
    rgb = np.repeat(image[None, :, :, None], 3, axis=-1)
    feeds = {"image": rgb, "given_diameter": np.zeros(1, np.float32)}
    session = onnxruntime.InferenceSession(PAGE / "built" / "nuclei.onnx")
    counts, seconds = set(), {"onnxruntime": [], "the page": []}
    driver = opened(server.server_port)
    try:
        for turn in range(TURNS + 1):
            start = time.perf_counter()
            found = session.run(["num_instances"], feeds)
            times = {"onnxruntime": time.perf_counter() - start}
            times["the page"], count = driver.execute_async_script(ASK, SAMPLE)
            counts |= {count, int(found[0][0])}
            if turn:  # The first warms up.
                for name, value in times.items():
                    seconds[name].append(value)
        size = sum(path.stat().st_size for path in PAGE.glob("*.[hcj]*"))
        size += sum(path.stat().st_size for path in (PAGE / "built").iterdir())
    finally:
        driver.quit()
        server.shutdown()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12}  {median:.2f} s")
    print(f"ratio {medians['the page'] / medians['onnxruntime']:.2f}, at most 3")
    print(f"instances {', '.join(map(str, sorted(counts)))}; files {size / 1e6:.1f} MB, at most 25")


if __name__ == "__main__":
    main()
