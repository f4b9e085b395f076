"""Presets in zip files, from a real https server on this machine."""

import hashlib
import http.server
import ssl
import stat
import threading
import zipfile
from pathlib import Path

import pytest
import trustme

from keras_rpe.models import InstanceSegmenter, PresetError
from keras_rpe.models.presets import CARD, CONFIG, METADATA, WEIGHTS
from keras_rpe.models.presets.source import cache_folder, unpack_preset


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        files = self.server.files  # type: ignore[attr-defined]
        if self.path == "/moved.zip":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/preset.zip")
            self.end_headers()
            return
        if self.path not in files:
            self.send_error(404)
            return
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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    return cache_folder()


def _zip(path: Path, preset: Path, folder: str = "") -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in preset.iterdir():
            file.write(member, folder + member.name)
    return path.read_bytes()


def _address(server, name: str, content: bytes, length: int | None = None) -> str:
    server.files[f"/{name}"] = (content, len(content) if length is None else length)
    return f"https://localhost:{server.server_port}/{name}"


def _handle(url: str, content: bytes) -> str:
    return f"{url}#sha256={hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("folder", ["", "nuclei/"])
def test_a_preset_is_fetched_once(server, preset, model, tmp_path, cache, folder) -> None:
    content = _zip(tmp_path / "preset.zip", preset, folder)
    handle = _handle(_address(server, "preset.zip", content), content)
    loaded = InstanceSegmenter.from_preset(handle)
    for a, b in zip(loaded.get_weights(), model.get_weights()):
        assert (a == b).all()
    assert loaded.source == handle
    (entry,) = cache.iterdir()
    assert {path.name for path in entry.iterdir()} == {CARD, CONFIG, METADATA, WEIGHTS}
    del server.files["/preset.zip"]
    InstanceSegmenter.from_preset(handle)  # from the cache


def test_a_wrong_checksum_is_refused(server, preset, tmp_path, cache) -> None:
    content = _zip(tmp_path / "preset.zip", preset)
    url = _address(server, "wrong.zip", content)
    with pytest.raises(PresetError, match=r"its SHA-256 must be 0{64}"):
        InstanceSegmenter.from_preset(f"{url}#sha256={'0' * 64}")
    assert not list(cache.iterdir())


def test_a_truncated_download_is_refused(server, preset, tmp_path, cache) -> None:
    content = _zip(tmp_path / "preset.zip", preset)
    url = _address(server, "cut.zip", content[: len(content) // 2], len(content))
    with pytest.raises(PresetError, match=r"cannot be downloaded|SHA-256"):
        InstanceSegmenter.from_preset(_handle(url, content))
    assert not list(cache.iterdir())


def test_addresses_that_cannot_be_had_are_one_sentence(server, cache) -> None:
    base = f"https://localhost:{server.server_port}"
    for url in (f"{base}/none.zip", "https://localhost:1/preset.zip", f"{base}/moved.zip"):
        with pytest.raises(PresetError, match=r"cannot be downloaded|insecure") as error:
            InstanceSegmenter.from_preset(f"{url}#sha256={'0' * 64}")
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
        "hf://user",
        "kaggle://user/model",
        "kaggle://user/../../x",
    ],
)
def test_handles_of_other_forms_are_refused(handle: str, cache) -> None:
    with pytest.raises(PresetError, match="`preset` must"):
        InstanceSegmenter.from_preset(handle)
    assert not cache.exists()


def _archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {CONFIG: b"{}", **members}.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "../../metadata.json",
        "/metadata.json",
        "a/../../metadata.json",
        "..\\metadata.json",
        "a/b/metadata.json",
        "evil.py",
        "a/metadata.json",
    ],
)
def test_members_that_climb_out_or_do_not_belong_are_refused(tmp_path, name: str) -> None:
    path = _archive(tmp_path / "evil.zip", **{name: b"{}"})
    with pytest.raises(PresetError, match="must hold"):
        unpack_preset(path, tmp_path / "a" / "b")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"evil.zip", "home", "a"}
    assert not (tmp_path / "a" / "b").exists()


def test_links_are_refused(tmp_path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo(CONFIG)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(PresetError, match="must hold"):
        unpack_preset(path, tmp_path / "out")


def test_bombs_are_refused(tmp_path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(CONFIG, "{}")
        file.writestr(WEIGHTS, bytes(200_000_000))
    with pytest.raises(PresetError, match="grows from"):
        unpack_preset(path, tmp_path / "out")
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as file:
        for k in range(2_000):
            file.writestr(f"{k}/config.json", "{}")
    with pytest.raises(PresetError, match="2000 files"):
        unpack_preset(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_larger_than_it_says_is_refused(tmp_path) -> None:
    path = _archive(tmp_path / "liar.zip", **{METADATA: b"x" * 5_000})
    content = path.read_bytes()
    small = (100).to_bytes(4, "little")
    changed = content.replace((5_000).to_bytes(4, "little"), small)
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(PresetError, match=r"damaged|larger than it says"):
        unpack_preset(path, tmp_path / "out")


def test_damaged_archives_are_refused(preset, tmp_path) -> None:
    content = _zip(tmp_path / "preset.zip", preset)
    path = tmp_path / "damaged.zip"
    middle = len(content) // 2
    for damaged in (
        b"",
        b"text",
        content[:middle],
        content[:middle] + bytes(50) + content[middle + 50 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(PresetError, match="damaged"):
            unpack_preset(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
