"""The documentation: its Python examples are run, and the site is built: `pytest -m slow`."""

import importlib
import re
import subprocess
import sys
import textwrap
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_rpe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What npm brings for the page in the browser has pages of its own.
PAGES = sorted(path for path in DOCS.rglob("*.md") if "node_modules" not in path.parts)
EXTRA = ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml")
_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.M | re.S)
_FETCHED = re.compile(
    r'<(?:script|img|iframe)[^>]*\ssrc="(?:https?:)?//|@import|<link[^>]*href="https?:'
)
_DRAWN = {
    "method/embedding.md": ["rotation.png"],
    "method/margins.md": ["margins.png"],
    "method/mean_shift.md": ["loops.png", "paths.png"],
}
_LARGEST_DIFFERENCE = 3.0  # Of 255, on average: fonts and the order of sums may differ.


def _examples(page: Path) -> list[str]:
    """The Python examples of a page; what it includes is tested where it comes from."""
    return [textwrap.dedent(code) for _, code in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def _named(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


WITH_EXAMPLES = [page for page in PAGES if _examples(page)]


def _public_names() -> list[str]:
    modules = [name for name in keras_rpe.__all__ if not name.startswith("_")]
    modules = [name for name in modules if find_spec(f"keras_rpe.{name}") is not None]
    names = ["keras_rpe.list_presets"]
    for module in [*modules, "models.backbones"]:
        exported = importlib.import_module(f"keras_rpe.{module}").__all__
        names += [f"keras_rpe.{module}.{name}" for name in exported]
    return names


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 10


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w/]+\.md\b", navigation)) == sorted(map(_named, PAGES))


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=_named)
def test_examples(page: Path, tmp_path, monkeypatch) -> None:
    """One after the other, in one namespace, as a reader of the page would."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, code in enumerate(_examples(page), start=1):
        exec(compile(code, f"{_named(page)} example {number}", "exec"), names)
    for name in _DRAWN.get(_named(page), []):
        drawn, shown = (
            np.asarray(Image.open(path).convert("RGB"), "float32")
            for path in (tmp_path / name, DOCS / "assets" / name)
        )
        assert drawn.shape == shown.shape, name
        assert np.abs(drawn - shown).mean() < _LARGEST_DIFFERENCE, name


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    missing = [name for name in EXTRA if not _is_installed(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert not re.search(r"^(WARNING|ERROR)", output, re.M), output
    return folder


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.slow
def test_site_has_every_page(site: Path) -> None:
    for page in PAGES:
        html = site / page.relative_to(DOCS).with_suffix(".html")
        assert html.is_file(), html
        assert "<h1" in html.read_text(encoding="utf-8"), html
    assert not (site / "hooks").exists()


@pytest.mark.slow
def test_reference_has_every_public_name(site: Path) -> None:
    inventory = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    assert set(_public_names()) <= {line.split(" ", 1)[0] for line in lines}


@pytest.mark.slow
def test_pages_fetch_nothing(site: Path) -> None:
    for html in sorted(site.rglob("*.html")):
        assert not _FETCHED.search(html.read_text(encoding="utf-8")), html


@pytest.mark.slow
def test_formulas_are_mathml(site: Path) -> None:
    for page in PAGES:
        formulas = re.findall(r"\$\$.*?\$\$|\$[^$\n]+\$", page.read_text("utf-8"), re.S)
        html = (site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert html.count("<math ") == len(formulas), page
        assert "arithmatex" not in html, page


@pytest.mark.slow
def test_docstrings_have_their_sections(site: Path) -> None:
    """No doctest or section title is left in running text."""
    for html in sorted((site / "api").glob("*.html")):
        text = re.sub(r"<pre.*?</pre>", "", html.read_text(encoding="utf-8"), flags=re.S)
        assert "&gt;&gt;&gt;" not in text, html
        left = re.search(r"<p>(Args|Call arguments|Example|Input shape|Raises|Returns): ?\w", text)
        assert left is None, (html, left)


@pytest.mark.slow
def test_dataclasses_have_their_signatures(site: Path) -> None:
    html = (site / "api" / "margins.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]*>", "", html)
    assert "Capacity(groups: int, upper_bound: int)" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "target"),
    [
        ("guides/settings", "models.html#keras_rpe.models.InstanceSegmenter.optimize_thresholds"),
        ("method/mean_shift", "layers.html#keras_rpe.layers.SeededMeanShift"),
        ("api/margins", "margins.html#keras_rpe.margins.groups_upper_bound"),
    ],
)
def test_public_names_are_linked(site: Path, page: str, target: str) -> None:
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    file, _, anchor = target.partition("#")
    assert re.search(rf'href="[^"]*{re.escape("#" + anchor)}"', html)
    assert f'id="{anchor}"' in (site / "api" / file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_modules_are_linked(site: Path) -> None:
    html = (site / "method" / "margins.html").read_text(encoding="utf-8")
    assert '<a href="../api/margins.html"><code>keras_rpe.margins</code></a>' in html
