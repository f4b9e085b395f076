from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints.checkpoint_fixtures import (
    HEADER,
    STORAGES,
    Raw,
    Storage,
    call,
    named,
    older_file,
    opcodes,
    pickled,
    tensor,
    zip_file,
    zipped,
)
from safetensors.numpy import save_file

from keras_rpe.checkpoints import CheckpointError, read_safetensors, read_torch_file

Writer = Callable[..., bytes]
both_formats = pytest.mark.parametrize("write", [zip_file, older_file], ids=["zip", "older"])
FLOATS = Storage("0", np.arange(24, dtype="f4"))


def read(tmp_path: Path, content: bytes, **options: Any) -> dict[str, np.ndarray]:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read_torch_file(path, **options)


def refusal(tmp_path: Path, content: bytes, **options: Any) -> str:
    """The one sentence with which a file is refused, from the file's name on."""
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, content, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 500
    return message.split("weights.pth', which ")[1]


@both_formats
def test_dtypes(tmp_path: Path, write: Writer) -> None:
    values = np.array([[0, 1, 2], [3, 4, 100]])
    storages = [Storage(dtype, values.astype(dtype)) for dtype in STORAGES]
    arrays = read(tmp_path, write({one.key: tensor(one) for one in storages}, storages))
    for storage in storages:
        array = arrays[storage.key]
        np.testing.assert_array_equal(array, storage.values, strict=True)
        assert array.flags.writeable
        assert array.flags.c_contiguous
    expected = np.array([1, -2.5, np.inf, -0.0, 3e38], "f4")
    expected = (expected.view("u4") & 0xFFFF0000).view("f4")
    storage = Storage("0", (expected.view("u4") >> 16).astype("u2"), "torch.BFloat16Storage")
    array = read(tmp_path, write({"a": tensor(storage)}, [storage]))["a"]
    assert array.dtype == np.float32
    assert array.tobytes() == expected.tobytes()


@both_formats
def test_strides_and_offsets(tmp_path: Path, write: Writer) -> None:
    value = {
        "transposed": tensor(FLOATS, 0, (4, 6), (1, 4)),
        "slice": tensor(FLOATS, 5, (2, 3), (12, 2)),
        "last": tensor(FLOATS, 23, (), ()),
        "expanded": tensor(FLOATS, 3, (5, 2), (0, 1)),
        "empty": tensor(FLOATS, 24, (0, 9), (9, 1)),
    }
    arrays = read(tmp_path, write(value, [FLOATS]))
    assert list(arrays) == list(value)
    np.testing.assert_array_equal(arrays["transposed"], FLOATS.values.reshape(6, 4).T)
    np.testing.assert_array_equal(arrays["slice"], [[5, 7, 9], [17, 19, 21]])
    assert arrays["last"].shape == ()
    assert arrays["last"] == 23
    np.testing.assert_array_equal(arrays["expanded"], [[3, 4]] * 5)
    assert arrays["empty"].shape == (0, 9)
    # Arrays of one storage are copies, each on its own.
    arrays["transposed"][:] = -1
    assert arrays["slice"].min() > 0


@both_formats
def test_nested_state_dict(tmp_path: Path, write: Writer) -> None:
    others = Storage("1", np.array([1, 2], "i8"))
    parameter = call("torch._utils._rebuild_parameter", tensor(FLOATS), True, {})
    ordered = call("collections.OrderedDict")
    state = Raw(
        ordered.code
        + opcodes({"module.b": parameter, "module.a": tensor(others), "module.n": 3})[1:]
        + opcodes({"_metadata": call("collections.OrderedDict")})
        + b"b"
    )
    optimizer = {"state": {0: {"step": 1}}, "param_groups": [(1, 2)]}
    value = {"epoch": 3, "name": "x", "rate": 0.1, "optimizer": optimizer, "net": state}
    arrays = read(tmp_path, write(value, [FLOATS, others]))
    assert list(arrays) == ["b", "a"]
    np.testing.assert_array_equal(arrays["b"], FLOATS.values)
    np.testing.assert_array_equal(arrays["a"], [1, 2])


def test_protocol_four(tmp_path: Path) -> None:
    name = b"\x8c\x05torch\x8c\x0cFloatStorage\x93\x940h\x00"
    storage = opcodes("storage") + name + opcodes("0") + opcodes("cpu") + opcodes(24)
    place = opcodes(0) + opcodes((24,)) + opcodes((1,)) + opcodes(False) + b"}tR"
    rebuild = named("torch._utils._rebuild_tensor_v2").code
    body = opcodes({"a": Raw(rebuild + b"((" + storage + b"tQ" + place)}) + b"."
    content = b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
    members = {"a/data.pkl": content, "a/data/0": FLOATS.values.tobytes()}
    np.testing.assert_array_equal(read(tmp_path, zipped(members))["a"], FLOATS.values)


@both_formats
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([tensor(FLOATS)], "something other than a dict"),
        ({"a": {"b": tensor(FLOATS)}}, "its entry 'a' is not a tensor"),
        ({1: tensor(FLOATS)}, "its entry without a name is not a tensor"),
        ({"a": tensor(FLOATS, 1)}, "reaches out of its storage"),
        ({"a": tensor(FLOATS, 0, (2,), (-1,))}, "absurd size"),
        ({"a": tensor(FLOATS, 0, (2, 2), (1,))}, "do not fit each other"),
        ({"a": tensor(FLOATS, 0, [2], (1,))}, "arguments that no tensor has"),
        (
            {str(n): tensor(FLOATS, 0, (1 << 14, 8), (0, 1)) for n in range(9)},
            "would fill 4718592 bytes, above the limit of 1048576",
        ),
        ({"a": tensor(FLOATS, 0, (2,), (1,), (False, {}, {"conj": True}))}, "conjugated or neg"),
        (call("torch._utils._rebuild_sparse_tensor", 1), "_rebuild_sparse_tensor', which is ref"),
        (Raw(opcodes({"a": tensor(FLOATS)})[:-1] + opcodes({"a": tensor(FLOATS)})[2:]), "twice"),
        (Raw(opcodes("storage") + b"Q"), "a persistent identifier that is not a storage"),
        (Raw(b"\x8f"), "damaged"),  # An empty set: an opcode that no state dict has.
        (Raw(b"c" + "é".encode() * 90 + b"\nx\n"), "names the global '\\xe9"),
    ],
)
def test_refused_pickles(tmp_path: Path, write: Writer, value: Any, message: str) -> None:
    assert message in refusal(tmp_path, write(value, [FLOATS]))


@both_formats
def test_storages_must_have_the_size_that_is_declared(tmp_path: Path, write: Writer) -> None:
    for count in (23, 25, 2**40):
        declared = Storage("0", FLOATS.values, count=count)
        content = write({"a": tensor(declared, 0, (2,), (1,))}, [FLOATS])
        assert f"declares {count * 4 if write is zip_file else count}" in refusal(tmp_path, content)
    assert "storage" in refusal(tmp_path, write({"a": tensor(FLOATS)}))
    twice = {"a": tensor(FLOATS), "b": tensor(Storage("0", np.zeros(3, "i8")))}
    assert "has two storages under the key '0'" in refusal(tmp_path, write(twice, [FLOATS]))


def test_damaged_zip_archives_and_the_limit_of_bytes(tmp_path: Path) -> None:
    good = zip_file({"a": tensor(FLOATS)}, [FLOATS])
    assert "above the limit of 95" in refusal(tmp_path, good, max_bytes=95)
    assert read(tmp_path, good, max_bytes=96)["a"].nbytes == 96
    with pytest.raises(ValueError, match="max_bytes=0"):
        read_torch_file(tmp_path / "weights.pth", max_bytes=0)
    at = good.index(FLOATS.values.tobytes())
    assert "damaged" in refusal(tmp_path, good[: at + 5] + b"\xff" + good[at + 6 :])
    assert "without one data.pkl" in refusal(tmp_path, zipped({"a/version": b"3"}))
    big = zip_file({"a": tensor(FLOATS)}, [FLOATS], byteorder="big")
    assert "unknown byte order" in refusal(tmp_path, big)
    encrypted = bytearray(good)
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    assert "damaged" in refusal(tmp_path, bytes(encrypted))


def test_other_files(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"") == "is of another format"
    assert refusal(tmp_path, zip_file({"epoch": 1})) == "has no tensors"
    assert refusal(tmp_path, b"\x89HDF\r\n") == "is of another format"
    assert "is of another format" in refusal(tmp_path, b"\x80\x02K\x01." * 3)
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(CheckpointError, match="which is not a file"):
            read_torch_file(path)


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def harmful_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that write the marker when they are unpickled, by every way there is."""
    touch = f"touch {marker}"
    system = named("os.system").code
    arguments = opcodes((touch,))
    short = b"\x8c" + bytes([len(touch)]) + touch.encode()
    rebuild = named("torch._utils._rebuild_tensor_v2").code
    found = {f"eval-{p}": pickle.dumps(Touch(marker), p) for p in (0, 2, 4)}
    found["system"] = b"\x80\x02" + system + arguments + b"R."
    found["stack-global"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R."
    found["inst"] = b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    found["obj"] = b"(" + system + opcodes(touch) + b"o."
    found["newobj"] = b"\x80\x02" + named("subprocess.Popen").code + opcodes(([touch],)) + b"\x81."
    found["storage"] = b"\x80\x02(" + opcodes("storage") + system + arguments + b"RtQ."
    found["build"] = b"\x80\x02" + rebuild + opcodes((None, {"__defaults__": (1,)})) + b"b."
    attribute = b"_rebuild_tensor_v2.__globals__.__builtins__"
    found["attribute"] = b"\x80\x04\x8c\x0ctorch._utils\x8c\x2b" + attribute + b"\x93."
    return found


def test_nothing_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    found = harmful_pickles(marker)
    # They do run where pickle reads them: the test would see it.
    assert pickle.loads(found["eval-2"]) is None
    assert marker.exists()
    marker.unlink()
    system = pickled({"protocol_version": 1001, "little_endian": True})
    for name, content in found.items():
        files = {
            "zip": zipped({"archive/data.pkl": content}),
            "older": HEADER + pickled(1001) + system + content + pickled([]),
            "header": HEADER + content,
        }
        for kind, data in files.items():
            message = refusal(tmp_path, data)
            assert not marker.exists(), (name, kind)
            if name in ("system", "stack-global") and kind != "header":
                assert "names the global 'os.system', which is refused" in message
    # Nothing that stands in for torch's functions was changed by a BUILD opcode.
    read(tmp_path, zip_file({"a": tensor(FLOATS)}, [FLOATS]))


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory, time or depth."""
    colliding = b"".join(
        b"\x8a\x0c" + (n * (2**61 - 1)).to_bytes(12, "little") + b"N" for n in range(250_000)
    )
    values = {
        "dicts": Raw(b"}\x94" * 500_000),
        "doubled tuples": Raw(b")q\x00" + b"h\x00h\x00\x86q\x00" * 1000 + b"}h\x00Ns"),
        "colliding keys": Raw(b"}(" + colliding + b"u"),
        "too many opcodes": Raw(b"N0" * 3_000_000),
        "memo": Raw(b"N" + b"".join(b"r" + struct.pack("<I", i * 4001) for i in range(300_000))),
        "calls": Raw(
            named("torch.Size").code
            + b"q\x00("
            + b"N" * 10**6
            + b"tq\x01"
            + b"h\x00h\x01R0" * 500_000
        ),
        "text": Raw(b"X\xff\xff\xff\x00" + b"a" * 1000),
    }
    files = {name: zip_file(value, [FLOATS]) for name, value in values.items()}
    files["deflated"] = zipped({"archive/data.pkl": bytes(20 << 20)}, zipfile.ZIP_DEFLATED)
    return files


PROBE = r"""
import json, pathlib, re, sys, time
from safetensors.numpy import save_file

from keras_rpe.checkpoints import CheckpointError, read_safetensors, read_torch_file
status = pathlib.Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
results = {}
for name, path in json.loads(sys.argv[1]).items():
    before, start = peak(), time.process_time()
    try:
        read_torch_file(path)
        message = ""
    except CheckpointError as error:
        message = str(error)
    results[name] = message, time.process_time() - start, peak() - before
print(json.dumps(results))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_bombs_take_neither_memory_nor_time(tmp_path: Path) -> None:
    paths = {}
    for index, (name, content) in enumerate(bombs().items()):
        paths[name] = str(tmp_path / f"{index}.pth")
        Path(paths[name]).write_bytes(content)
    command = [sys.executable, "-c", PROBE, json.dumps(paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout.splitlines()[-1])
    assert set(results) == set(paths)
    for name, (message, seconds, mebibytes) in results.items():
        assert message.startswith("`path` must be a state dict saved by torch."), name
        assert "more memory than there is" not in message
        assert seconds < 30, name
        assert mebibytes < 600, name
    assert "compressed" in results["deflated"][0]
    assert "a pickle of more than" in results["too many opcodes"][0]


# Safetensors.

SAFE_DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool"]


def safe_content(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safe_entry(dtype: str, shape: list[int], *offsets: int) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


def safe_refusal(tmp_path: Path, data: bytes, **options: Any) -> str:
    """The one sentence with which a file is refused, from the file's name on."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path, **options)
    message = str(caught.value)
    assert message.startswith("`path` must be a safetensors file. Received: ")
    assert "\n" not in message
    return message.split("a.safetensors', which ")[1]


def test_safetensors_of_all_types(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {dtype: np.abs(random.normal(size=(3, 4)) * 5).astype(dtype) for dtype in SAFE_DTYPES}
    arrays |= {"empty": np.zeros((0, 3), "f4"), "scalar": np.array(3.0, "f4")}
    save_file(arrays, tmp_path / "a.safetensors", {"format": "np"})
    read = read_safetensors(tmp_path / "a.safetensors")
    assert list(read) == sorted(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].flags.writeable
        np.testing.assert_array_equal(read[name], array, strict=True)


def test_safetensors_in_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    bits = np.array([[0x3F80, 0xC000], [0x7F80, 0x8000]], "<u2")
    path.write_bytes(safe_content(safe_entry("BF16", [2, 2], 0, 8), bits.tobytes()))
    array = read_safetensors(path)["a"]
    np.testing.assert_array_equal(array, np.array([[1, -2], [np.inf, -0.0]], "f4"), strict=True)
    assert np.signbit(array[1, 1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (safe_content({}, length=2**63), "is damaged"),
        (safe_content({}), "has no arrays"),
        (safe_content(safe_entry("F32", [1], 0, 4), b"abc"), "is damaged"),
        (safe_content(safe_entry("F32", [2], 0, 4), b"abcd"), "is damaged"),
        (
            safe_content(safe_entry("F8_E4M3", [1], 0, 1), b"a"),
            "of the type 'F8_E4M3', which NumPy lacks",
        ),
    ],
)
def test_damaged_safetensors(tmp_path: Path, data: bytes, message: str) -> None:
    assert message in safe_refusal(tmp_path, data)


def test_limits_of_safetensors(tmp_path: Path) -> None:
    data = safe_content(safe_entry("F32", [2], 0, 8), bytes(8))
    assert f"above the limit of {len(data) - 1}" in safe_refusal(
        tmp_path, data, max_bytes=len(data) - 1
    )
    assert read_safetensors(tmp_path / "a.safetensors", len(data))["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="max_bytes=0"):
        read_safetensors(tmp_path / "a.safetensors", 0)
    with pytest.raises(CheckpointError, match="which is not a file"):
        read_safetensors(tmp_path)
