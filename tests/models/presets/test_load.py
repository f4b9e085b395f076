"""Presets found, loaded, saved and shared: folders, `.keras` files, archives from a real https
server on this machine, and hubs with stand-ins for their packages."""

import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import trustme

from keras_rpe.models import InstanceSegmenter, PresetError, load_keras_file, preset_names
from keras_rpe.models import upload_to_hub as upload
from keras_rpe.models.presets import CONFIG, FILES, METADATA, WEIGHTS
from keras_rpe.models.presets.load import cache_folder

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 40)).astype("uint8")


def assert_same(a: keras.Model, b: keras.Model) -> None:
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    outputs = [m.embed(IMAGE[None, ..., None]) for m in (a, b)]
    for x, y in zip(*outputs):
        np.testing.assert_array_equal(x, y)


def test_round_trip(model, preset) -> None:
    assert {path.name for path in preset.iterdir()} == set(FILES)
    assert_same(InstanceSegmenter.from_preset(preset), model)
    metadata = json.loads((preset / METADATA).read_text())
    assert metadata["task"] == "instance segmentation"
    assert metadata["parameter_count"] == model.count_params()
    fresh = InstanceSegmenter.from_preset(str(preset), load_weights=False)
    assert any(not np.array_equal(a, b) for a, b in zip(fresh.get_weights(), model.get_weights()))


@pytest.mark.slow
def test_round_trip_on_jax(tmp_path) -> None:
    pytest.importorskip("jax", reason='needs jax: pip install -e ".[jax]"')
    script = f"""
import keras, numpy as np
from keras_rpe.models import InstanceSegmenter
model = InstanceSegmenter("unet_small", embedding_dim=8, iterations=2)
model.save_to_preset({str(tmp_path)!r})
loaded = InstanceSegmenter.from_preset({str(tmp_path)!r})
image = np.random.default_rng(0).integers(0, 255, (1, 48, 40, 3)).astype("uint8")
a, b = ({{k: np.asarray(v) for k, v in m(image).items()}} for m in (model, loaded))
assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_a_trained_model_saves_over_another_without_its_optimizer(model, preset, tmp_path) -> None:
    trained = InstanceSegmenter.from_config(model.get_config())
    trained.compile("adam")
    trained.optimizer.build(trained.trainable_variables)
    (tmp_path / "other").write_text("kept")
    model.save_to_preset(tmp_path)
    trained.save_to_preset(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "other"}
    assert_same(InstanceSegmenter.from_preset(tmp_path), trained)
    assert (tmp_path / WEIGHTS).stat().st_size == (preset / WEIGHTS).stat().st_size


def test_nothing_half_written(model, tmp_path, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model), "save_weights", full)
    with pytest.raises(OSError, match="No space left"):
        model.save_to_preset(tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_presets_list_those_there_are() -> None:
    with pytest.raises(PresetError, match=r"`preset` must be .*Received: preset='no-such'") as e:
        InstanceSegmenter.from_preset("no-such")
    for accepted in (*preset_names(), CONFIG, "hf://", "kaggle://", "https://"):
        assert accepted in str(e.value)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_damaged_files_are_refused(preset, tmp_path, name: str, damage: str) -> None:
    shutil.copytree(preset, tmp_path / "copy")
    path = tmp_path / "copy" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-9] + b"#" + content[-8:])
    with pytest.raises(PresetError, match=r"missing or damaged|`preset` must"):
        InstanceSegmenter.from_preset(tmp_path / "copy")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    compiled = InstanceSegmenter.from_config(model.get_config())
    compiled.set_weights(model.get_weights())
    compiled.compile("adam")
    compiled.optimizer.build(compiled.trainable_variables)
    compiled.save(path)
    return path


def test_keras_files(saved, model, tmp_path) -> None:
    assert_same(load_keras_file(saved), model)
    config = json.loads(zipfile.ZipFile(saved).read(CONFIG))
    layer = keras.layers.Lambda(lambda x: x)
    config["config"]["decoder"] = keras.saving.serialize_keras_object(layer)
    inputs = keras.Input((3,))
    other = keras.saving.serialize_keras_object(keras.Model(inputs, inputs))
    path = tmp_path / "evil.keras"
    for content, message in [
        (json.dumps(config), "Lambda can run code"),
        (json.dumps(other), "must describe a keras_rpe model"),
        ('{"a": "' + "a" * 9_000_000 + '"}', "must be smaller than"),
    ]:
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                target.writestr(name, content if name == CONFIG else source.read(name))
        with pytest.raises(PresetError, match=message):
            load_keras_file(path)


def test_damaged_keras_files_are_refused(saved, tmp_path) -> None:
    content = saved.read_bytes()
    path = tmp_path / "damaged.keras"
    for damaged in (b"", b"text", content[: len(content) // 2], content[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(PresetError, match="damaged"):
            load_keras_file(path)
    with pytest.raises(PresetError, match="No such file"):
        load_keras_file(tmp_path / "missing.keras")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        files = self.server.files  # type: ignore[attr-defined]
        if self.path == "/moved.zip":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/preset.zip")
            self.end_headers()
        elif self.path not in files:
            self.send_error(404)
        else:
            content, length = files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    httpd = http.server.ThreadingHTTPServer(("localhost", 0), _Handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    httpd.files = {}
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        patch.setenv("NO_PROXY", "localhost")
        yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return cache_folder()


@pytest.fixture(scope="module")
def zipped(preset, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("zip") / "preset.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in preset.iterdir():
            file.write(member, "tiny/" + member.name)
    return path.read_bytes()


def test_an_archive_is_fetched_once(server, zipped, model, cache) -> None:
    server.files["/preset.zip"] = (zipped, len(zipped))
    digest = hashlib.sha256(zipped).hexdigest()
    handle = f"https://localhost:{server.server_port}/preset.zip#sha256={digest}"
    loaded = InstanceSegmenter.from_preset(handle)
    assert_same(loaded, model)
    assert loaded.source == handle
    (entry,) = cache.iterdir()
    assert {path.name for path in entry.iterdir()} == set(FILES)
    del server.files["/preset.zip"]
    InstanceSegmenter.from_preset(handle)  # from the cache


def test_downloads_that_are_refused(server, zipped, cache) -> None:
    server.files["/preset.zip"] = (zipped, len(zipped))
    server.files["/cut.zip"] = (zipped[:-999], len(zipped))
    server.files["/text.zip"] = (b"text", 4)
    base = f"https://localhost:{server.server_port}"
    digest = hashlib.sha256(zipped).hexdigest()
    for url, sha256, message in [
        (f"{base}/preset.zip", "0" * 64, "its SHA-256 must be 0{64}"),
        (f"{base}/cut.zip", digest, r"cannot be downloaded|SHA-256"),
        (f"{base}/text.zip", hashlib.sha256(b"text").hexdigest(), "damaged"),
        (f"{base}/none.zip", digest, "cannot be downloaded"),
        ("https://localhost:1/preset.zip", digest, "cannot be downloaded"),
        (f"{base}/moved.zip", digest, r"cannot be downloaded|insecure"),
    ]:
        with pytest.raises(PresetError, match=message) as error:
            InstanceSegmenter.from_preset(f"{url}#sha256={sha256}")
        assert "\n" not in str(error.value)
        assert not list(cache.iterdir())


@pytest.mark.parametrize(
    "handle",
    [
        "https://localhost/preset.zip",
        "https://localhost/preset.zip#sha256=12",
        "http://localhost/preset.zip#sha256=" + "0" * 64,
        "file:///etc/passwd",
        "hf://../../etc",
        "kaggle://user/model",
    ],
)
def test_handles_of_other_forms_are_refused(handle: str, cache) -> None:
    with pytest.raises(PresetError, match="`preset` must"):
        InstanceSegmenter.from_preset(handle)
    assert not cache.exists()


@pytest.fixture
def hub(monkeypatch, preset):
    """Stand-ins for the packages of the hubs; gives the list of calls to them."""
    calls: list[tuple] = []

    class HfApi:
        def create_repo(self, repo, private, exist_ok):
            calls.append(("create", repo, private))

        def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
            if repo_id == "user/forbidden":
                raise RuntimeError("403 Forbidden\nlog in first")
            calls.append(("upload", repo_id, folder_path, allow_patterns))

    def snapshot_download(repo, revision, allow_patterns):
        calls.append((repo, revision, allow_patterns))
        if repo == "user/none":
            raise OSError("Repository Not Found\nand a page of advice")
        return str(preset if repo != "user/empty" else preset.parent)

    def model_download(handle):
        calls.append((handle,))
        return str(preset)

    def model_upload(handle, folder, license_name, ignore_patterns):
        calls.append((handle, folder, license_name, ignore_patterns))

    hugging_face = SimpleNamespace(HfApi=HfApi, snapshot_download=snapshot_download)
    kaggle = SimpleNamespace(model_download=model_download, model_upload=model_upload)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hugging_face)
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    return calls


def test_download_from_hubs(hub, model) -> None:
    loaded = InstanceSegmenter.from_preset("hf://user/repo")
    assert_same(loaded, model)
    assert loaded.source == "hf://user/repo"
    for handle in ("hf://user/repo@v1.0", "kaggle://user/model/keras/small/3"):
        InstanceSegmenter.from_preset(handle, load_weights=False)
    files = list(FILES)
    expected = [("user/repo", None, files), ("user/repo", "v1.0", files)]
    assert hub == [*expected, ("user/model/keras/small/3",)]
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


def test_upload_sends_only_the_files_of_the_preset(hub, preset, tmp_path) -> None:
    upload(preset, "hf://user/repo", private=True)
    files = list(FILES)
    assert hub == [("create", "user/repo", True), ("upload", "user/repo", str(preset), files)]
    shutil.copytree(preset, tmp_path / "preset")
    (tmp_path / "preset" / "secret.txt").write_text("secret")
    upload(tmp_path / "preset", "kaggle://user/model/keras/small")
    assert hub[2:] == [
        ("user/model/keras/small", str(tmp_path / "preset"), None, ["secret.txt"]),
    ]


def test_uploads_that_are_refused(hub, preset, tmp_path) -> None:
    for handle in ("nuclei", "hf://user", "hf://user/repo@v1", "https://a/b"):
        with pytest.raises(PresetError, match=r"`handle` must be hf://USER/REPO"):
            upload(preset, handle)
    shutil.copytree(preset, tmp_path / "preset")
    (tmp_path / "preset" / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(PresetError, match="missing or damaged"):
        upload(tmp_path / "preset", "hf://user/repo")
    assert not hub
    with pytest.raises(PresetError, match=r"upload to hf://user/forbidden .*403 Forbidden$"):
        upload(preset, "hf://user/forbidden")
