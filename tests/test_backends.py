"""The same numbers on every backend: `pip install -e ".[test,jax,torch]"`, `pytest -m slow`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def _run(backend: str, script: str, *arguments: str) -> None:
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, str(HERE / script), *arguments], env=environment, check=True)


def _outputs(backend: str, tmp_path: Path) -> dict[str, np.ndarray]:
    path = tmp_path / f"{backend}.npz"
    _run(backend, "backend_outputs.py", str(path))
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_tasks_train_without_tensorflow(backend: str) -> None:
    pytest.importorskip(backend)
    _run(backend, "backend_tasks.py")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_numbers_are_those_of_tensorflow(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    expected, result = _outputs("tensorflow", tmp_path), _outputs(backend, tmp_path)
    assert expected.keys() == result.keys()
    for name, value in expected.items():
        assert value.dtype == result[name].dtype, name
        np.testing.assert_allclose(result[name], value, rtol=1e-5, atol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_benchmark_of_gpus_runs_on_a_cpu(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    _run(backend, "../benchmarks/gpu.py", "--small", "--json", str(tmp_path / "gpu.json"))
    measured = json.loads((tmp_path / "gpu.json").read_text())
    assert measured["device"].startswith(backend)
    rows = {row.get("method") or row["case"]: row for row in measured["rows"]}
    assert not [row for row in measured["rows"] if "failed" in row]
    assert rows["labels as on the CPU"]["rate"] == 1
    assert {"ours, float32", "ours, mixed precision", "dense, float32"} <= rows.keys()


@pytest.mark.slow
def test_weights_of_jax_predict_the_same_on_tensorflow(data_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    folder, out = tmp_path / "data", tmp_path / "run"
    for part in ("images", "instances"):
        (folder / part).mkdir(parents=True)
        for path in sorted((data_root / "dsb2018" / "train" / part).iterdir())[:10]:
            (folder / part / path.name).symlink_to(path)
    options = ["--minutes", "0.5", "--batch-size", "32", "--precision", "mixed_bfloat16"]
    train = "../examples/train_nuclei.py", str(folder), "--out", str(out)
    _run("jax", *train, *options, "--workers", "2")
    found = {}
    # Half a minute of training separates hardly anything: instances would depend on rounding.
    wanted = str(folder), f"{out}/preset", "embeddings"
    for backend in ("jax", "tensorflow"):
        _run(backend, "backend_outputs.py", f"{tmp_path}/{backend}.npz", *wanted)
        with np.load(tmp_path / f"{backend}.npz") as file:
            found[backend] = dict(file)
    assert len(found["jax"]) == 10
    for name, embeddings in found["tensorflow"].items():
        np.testing.assert_allclose(found["jax"][name], embeddings, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_labels_of_presets_are_those_of_tensorflow(
    backend: str, data_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip(backend)
    for preset, folder in {"nuclei": "dsb2018/train", "objects": "coco_ccby"}.items():
        found = []
        for one in ("tensorflow", backend):
            path = tmp_path / f"{preset}_{one}.npz"
            _run(one, "backend_outputs.py", str(path), str(data_root / folder), preset)
            with np.load(path) as file:
                found.append(dict(file))
        assert len(found[0]) == 10
        for name, labels in found[0].items():
            assert labels.any(), name
            # A pixel may lie on a threshold.
            assert np.mean(found[1][name] != labels) < 1e-5, name
