from __future__ import annotations

import pickle
import sys
import tarfile

import numpy as np
import pytest
from bsds500_files import add, drawn, segmentation

from keras_rpe import data
from keras_rpe.data import LabelFolderError
from keras_rpe.data.bsds500_builder import bsds500_source


def test_missing_package_is_named_with_its_command(monkeypatch):
    from keras_rpe.data import bsds500_builder

    bsds500_builder._builder_class.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'pip install "keras-rpe\[data\]"'):
        data.Bsds500  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Bsds501'"):
        data.Bsds501  # noqa: B018


def test_source_is_found_in_each_layout(tmp_path):
    with pytest.raises(LabelFolderError, match=r"holds neither images .* nor BSR_bsds500\.tgz"):
        bsds500_source(tmp_path, tmp_path / "unpacked")
    inner = tmp_path / "BSR/BSDS500/data"
    add(inner, "a")
    (inner / "images/train/a.png").rename(inner / "images/train/a.jpg")
    assert bsds500_source(tmp_path, tmp_path / "unpacked") == inner
    assert bsds500_source(inner, tmp_path / "unpacked") == inner
    (tmp_path / "archive").mkdir()
    with tarfile.open(tmp_path / "archive/BSR_bsds500.tgz", "w:gz") as tar:
        tar.add(tmp_path / "BSR", "BSR")
    found = bsds500_source(tmp_path / "archive", tmp_path / "unpacked")
    assert [pair.name for pair in data.find_boundary_pairs(found)] == ["a"]


@pytest.mark.slow
def test_builder(tmp_path):
    tfds = pytest.importorskip(
        "tensorflow_datasets", reason='needs tensorflow-datasets: pip install -e ".[data]"'
    )
    for name in "ab":
        add(tmp_path / "manual", name)
    add(tmp_path / "manual", "v", "val", width=30)
    assert pickle.loads(pickle.dumps(data.Bsds500)) is data.Bsds500
    builder = data.Bsds500(data_dir=tmp_path / "prepared")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "manual")
    )
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 2,
        "val": 1,
    }
    examples = list(
        tfds.as_numpy(tfds.load("bsds500", split="train", data_dir=builder.data_path.parents[1]))
    )
    assert sorted(one["name"] for one in examples) == [b"a", b"b"]
    expected = np.mean([drawn(segmentation(shift=one)) for one in range(4)], axis=0)
    for one in examples:
        assert one["annotators"] == 4
        np.testing.assert_allclose(one["shares"], expected, rtol=1e-6)
        np.testing.assert_array_equal(one["image"][..., 0], segmentation() * 80)
