from __future__ import annotations

import pickle
import sys

import keras
import numpy as np
import pytest
from digit_sources import blocks

from keras_rpe import data
from keras_rpe.data import LabelFolderError
from keras_rpe.data.digits_builder import digits_source


def test_missing_package_is_named_with_its_command(monkeypatch):
    from keras_rpe.data import digits_builder

    digits_builder._builder_class.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[data\]"'):
        data.Digits  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Digitz'"):
        digits_builder.Digitz  # noqa: B018


def test_source_is_the_one_file_or_mnist(tmp_path):
    assert digits_source(tmp_path / "none") is None
    assert digits_source(tmp_path) is None
    (tmp_path / "a.npz").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert digits_source(tmp_path) == tmp_path / "a.npz"
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(
        LabelFolderError, match=r"holds 2 \.npz files, such as a\.npz and b\.npz, not one\.$"
    ):
        digits_source(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("manual", [True, False])
def test_builder(tmp_path, monkeypatch, manual):
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason='needs tensorflow-datasets: pip install -e ".[data]"'
    )
    from keras_rpe.data import digits_builder

    monkeypatch.setattr(digits_builder, "SCENES", {"train": 6, "test": 4})
    source = blocks()
    if manual:
        (tmp_path / "manual").mkdir()
        np.savez(tmp_path / "manual" / "digits.npz", x=source[0], y=source[1])
    else:
        monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: (source, source))
    assert pickle.loads(pickle.dumps(data.Digits)) is data.Digits
    builder = data.Digits(data_dir=tmp_path / "prepared")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    )
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 6,
        "test": 4,
    }
    for split, count in digits_builder.SCENES.items():
        loaded = tfds.load("digits", split=split, data_dir=builder.data_path.parents[1])
        found = sorted(_key(one) for one in tfds.as_numpy(loaded))
        if not manual:
            assert len(found) == count
            continue
        dataset = data.digits(source, split, num_scenes=count, classes=True).unbatch()
        expected = [
            {"image": image, "count": labels["instances"].max(), **labels}
            for image, labels in tfds.as_numpy(dataset)
        ]
        assert found == sorted(map(_key, expected))


def _key(example: dict[str, np.ndarray]) -> list:
    return [
        np.asarray(example[name]).astype(int).tolist()
        for name in ("count", "image", "instances", "classes")
    ]
