import shutil
import sys
from types import SimpleNamespace

import pytest

from keras_rpe.models import PresetError, upload_to_hub
from keras_rpe.models.presets import FILES, METADATA, WEIGHTS


@pytest.fixture
def uploads(monkeypatch):
    calls: list = []

    class HfApi:
        def create_repo(self, repo, private, exist_ok):
            calls.append(("create", repo, private))

        def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
            if repo_id == "user/forbidden":
                raise RuntimeError("403 Forbidden\nlog in first")
            calls.append(("upload", repo_id, folder_path, sorted(allow_patterns)))

    def model_upload(handle, folder, license_name, ignore_patterns):
        calls.append((handle, folder, license_name, ignore_patterns))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi))
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(model_upload=model_upload))
    return calls


def test_hugging_face_gets_the_files_of_the_preset_alone(uploads, preset) -> None:
    upload_to_hub(preset, "hf://user/repo", private=True)
    assert uploads == [
        ("create", "user/repo", True),
        ("upload", "user/repo", str(preset), sorted(FILES)),
    ]


def test_kaggle_ignores_other_files(uploads, preset, tmp_path) -> None:
    folder = tmp_path / "preset"
    shutil.copytree(preset, folder)
    (folder / "secret.txt").write_text("secret")
    upload_to_hub(folder, "kaggle://user/model/keras/small")
    assert uploads == [("user/model/keras/small", str(folder), None, ["secret.txt"])]


@pytest.mark.parametrize("handle", ["nuclei", "hf://user", "hf://user/repo@v1", "https://a/b"])
def test_other_handles_are_refused(uploads, preset, handle) -> None:
    with pytest.raises(PresetError, match=r"`handle` must be hf://USER/REPO"):
        upload_to_hub(preset, handle)
    assert not uploads


def test_a_damaged_preset_is_not_sent(uploads, preset, tmp_path) -> None:
    folder = tmp_path / "preset"
    shutil.copytree(preset, folder)
    (folder / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(PresetError, match="missing or damaged"):
        upload_to_hub(folder, "hf://user/repo")
    (folder / METADATA).unlink()
    with pytest.raises(PresetError, match="cannot be read"):
        upload_to_hub(folder, "hf://user/repo")
    assert not uploads


def test_errors_of_the_hub_are_one_sentence(uploads, preset) -> None:
    with pytest.raises(PresetError, match=r"upload to hf://user/forbidden .*403 Forbidden$"):
        upload_to_hub(preset, "hf://user/forbidden")
