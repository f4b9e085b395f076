"""The notebooks are run: `pytest -m slow`, with the extra `notebooks`."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(notebook: Path, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason='pip install -e ".[dev,notebooks]"')
    nbformat = pytest.importorskip("nbformat", reason='pip install -e ".[dev,notebooks]"')
    book = nbformat.read(notebook, nbformat.NO_CONVERT)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=900, resources=resources).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
