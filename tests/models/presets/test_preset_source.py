"""Hubs, with stand-ins for their packages: what is asked of them, and how their errors arrive."""

import sys
from types import SimpleNamespace

import pytest

from keras_rpe.models import InstanceSegmenter, PresetError
from keras_rpe.models.presets import CARD, CONFIG, METADATA, WEIGHTS


@pytest.fixture
def hub(monkeypatch, preset):
    calls: list[tuple] = []

    def snapshot_download(repo, revision, allow_patterns):
        calls.append((repo, revision, sorted(allow_patterns)))
        if repo == "user/none":
            raise OSError("Repository Not Found\nand a page of advice")
        return str(preset if repo != "user/empty" else preset.parent)

    def model_download(handle):
        calls.append((handle,))
        return str(preset)

    fake = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_download=model_download))
    return calls


def test_hugging_face(hub, model) -> None:
    loaded = InstanceSegmenter.from_preset("hf://user/repo")
    InstanceSegmenter.from_preset("hf://user/repo@v1.0", load_weights=False)
    files = sorted([CARD, CONFIG, METADATA, WEIGHTS])
    assert hub == [("user/repo", None, files), ("user/repo", "v1.0", files)]
    assert (loaded.get_weights()[0] == model.get_weights()[0]).all()
    assert loaded.source == "hf://user/repo"


def test_kaggle(hub) -> None:
    InstanceSegmenter.from_preset("kaggle://user/model/keras/small", load_weights=False)
    InstanceSegmenter.from_preset("kaggle://user/model/keras/small/3", load_weights=False)
    assert hub == [("user/model/keras/small",), ("user/model/keras/small/3",)]


def test_errors_of_a_hub_are_one_sentence(hub) -> None:
    with pytest.raises(PresetError, match=r"hf://user/none cannot .*: Repository Not Found$"):
        InstanceSegmenter.from_preset("hf://user/none")
    with pytest.raises(PresetError, match=r"hf://user/empty has no config.json"):
        InstanceSegmenter.from_preset("hf://user/empty")


@pytest.mark.parametrize("package", ["huggingface_hub", "kagglehub"])
def test_a_missing_package_is_named(monkeypatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    handle = "hf://a/b" if package == "huggingface_hub" else "kaggle://a/b/keras/c"
    with pytest.raises(ImportError, match=rf'{package} is needed .* "keras-rpe\[hub\]"'):
        InstanceSegmenter.from_preset(handle)


def test_the_real_package_without_network_is_one_sentence(monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PresetError, match="cannot be downloaded") as error:
        InstanceSegmenter.from_preset("hf://user/repo")
    assert "\n" not in str(error.value)
