from __future__ import annotations

import builtins
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

from keras_rpe.checkpoints import CheckpointError, read_torch_file

FLOATS = Storage("0", np.arange(4, dtype="f4"))


class Calls:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def harmful_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that write the marker when they are unpickled, by every way there is."""
    touch = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    system = named("os.system").code
    arguments = opcodes((touch,))
    short = b"\x8c" + bytes([len(touch)]) + touch.encode()
    found = {f"eval-{p}": pickle.dumps(Calls(eval, python), p) for p in range(6)}
    found |= {f"exec-{p}": pickle.dumps(Calls(exec, python), p) for p in range(6)}
    found["open"] = pickle.dumps({"a": Calls(open, str(marker), "w")}, 2)
    found["system"] = b"\x80\x02" + system + arguments + b"R."
    found["stack-global"] = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R."
    found["inst"] = b"(S'" + touch.encode() + b"'\nios\nsystem\n."
    found["obj"] = b"(" + system + opcodes(touch) + b"o."
    found["newobj"] = b"\x80\x02" + named("subprocess.Popen").code + opcodes(([touch],)) + b"\x81."
    found["key"] = b"\x80\x02}" + system + arguments + b"R" + b"K\x01s."
    found["storage"] = b"\x80\x02(" + opcodes("storage") + system + arguments + b"RtQ."
    found["build"] = b"\x80\x02" + system + b"}" + opcodes("__setstate__") + system + b"sb" + b"."
    found["attribute"] = (
        b"\x80\x04\x8c\x0ctorch._utils\x8c\x26_rebuild_tensor_v2.__globals__.__builtins__\x93."
    )
    found["function-as-value"] = (
        b"\x80\x02" + named("builtins.map").code + b"(" + system + opcodes([touch]) + b"tR."
    )
    return found


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "weights.pth"
    found = harmful_pickles(marker)
    # They do run where pickle reads them: the test would see it.
    assert pickle.loads(found["eval-2"]) is None
    assert marker.exists()
    marker.unlink()

    def forbidden(*arguments: Any, **options: Any) -> None:
        raise AssertionError("an import while reading")

    for name, content in found.items():
        system = {"protocol_version": 1001, "little_endian": True}
        files = {
            "alone": content,
            "zip": zipped({"archive/data.pkl": content}),
            "older": HEADER + pickled(1001) + pickled(system) + content + pickled([]),
            "header": HEADER + content,
            "keys": HEADER + pickled(1001) + pickled(system) + pickled({}) + content,
            "byteorder": zipped({"archive/data.pkl": pickled({}), "archive/byteorder": content}),
        }
        for kind, data in files.items():
            path.write_bytes(data)
            with monkeypatch.context() as patch:
                patch.setattr(builtins, "__import__", forbidden)
                message = refusal(path)
            assert not marker.exists(), (name, kind)
            if name in ("system", "stack-global") and kind in ("zip", "older"):
                assert "names the global 'os.system', which is refused" in message
            if name == "inst" and kind in ("zip", "older"):
                assert "uses the pickle opcode b'S'" in message


@pytest.mark.parametrize("write", [zip_file, older_file])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (named("torch.FloatStorage").code + b")R", "calls something other than a function"),
        (named("torch.Size").code + b"NR", "calls something other than a function"),
        (call("torch.Size", 3).code, "arguments that no tensor has"),
        (call("collections.OrderedDict", [1]).code, "arguments that no tensor has"),
        (named("torch.FloatStorage").code + b"}b", "takes something else for a PickledDict"),
        (opcodes(tensor(FLOATS)) + b"}b", "takes something else for a PickledDict"),
        (opcodes(("module", "x")) + b"Q", "holds a whole module"),
        (opcodes("storage") + b"Q", "a persistent identifier that is no storage"),
        (opcodes((*FLOATS.identifier(), ("1", 0, 1))) + b"Q", "too old to be read"),
        (b"P0\n", "uses the pickle opcode b'P'"),
        (b"\x8b\xff\xff\xff\x7f", "uses the pickle opcode b'\\x8b'"),
        (b"\x8d" + b"\xff" * 7 + b"\x7f", "uses the pickle opcode b'\\x8d'"),
        (b"X\xff\xff\xff\xff", "a text of 4294967295 bytes"),
        (b"T\xff\xff\xff\xff", "a text of -1 bytes"),
        (b"B\xff\xff\xff\xff", "a text of 4294967295 bytes"),
        (b"X\x01\x00\x00\x00\xff", "a name that is not UTF-8"),
        (b"c" + b"a" * 300, "a name that does not end"),
        (b"c\xff\n\xff\n", "a name that is not UTF-8"),
        (b"NN\x93", "a global whose name is no text"),
        (b"h\x05", "asks for what it did not store"),
        (b"r\x00\x00\x00\x00", "takes something else for a object"),
        (b"000", "lacks a mark"),
        (b"t", "lacks a mark"),
        (b"\x87", "takes from an empty stack"),
        (b"}(Nu", "a key that has no value"),
        (b"NNa", "takes something else for a list"),
        (b"\x80\x09", "a pickle of protocol 9"),
        (b"c" + "é".encode() * 90 + b"\nx\n", "names the global '\\xe9"),
    ],
)
def test_damaged_pickles(
    tmp_path: Path, write: Callable[..., bytes], code: bytes, message: str
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(write(Raw(code), [FLOATS]))
    assert message in refusal(path)


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory, time or depth."""
    values = {
        "dicts": Raw(b"}\x94" * 1_000_000),
        "lists": Raw(b"](" * 300_000),
        "tuples": Raw(b")" + b"\x85" * 300_000),
        "nested dicts": Raw(b"}K\x00" * 200_000 + b"}" + b"s" * 200_000),
        "doubled lists": Raw(b"]q\x00" + b"](h\x00h\x00eq\x00" * 1000),
        "doubled tuples": Raw(b")q\x00" + b"h\x00h\x00\x86q\x00" * 1000),
        "opcodes": Raw(b"N0" * 2_000_000),
        "memo": Raw(b"N" + b"".join(b"r" + struct.pack("<I", i * 4001) for i in range(300_000))),
        "text": Raw(b"X\xff\xff\xff\x00" + b"a" * 1000),
        "names": Raw(
            b"}"
            + opcodes(tensor(FLOATS, 0, (1 << 17,), (0,)))
            + b"q\x000("
            + b"".join(opcodes(str(i)) + b"h\x00" for i in range(100_000))
            + b"u"
        ),
        "storage": call("torch.Size", Storage("0", FLOATS.values, count=2**50)),
    }
    files = {name: zip_file(value, [FLOATS]) for name, value in values.items()}
    big = {"archive/data.pkl": bytes(20 << 20)}
    files["deflated"] = zipped(big, zipfile.ZIP_DEFLATED)
    stored = bytearray(zip_file({"a": tensor(FLOATS)}, [FLOATS]))
    at = stored.index(b"PK\x01\x02")
    stored[at + 20 : at + 28] = b"\xf0\xff\xff\xff" * 2
    files["declared size"] = bytes(stored)
    end = stored.index(b"PK\x05\x06")
    stored[end + 8 : end + 20] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    files["declared directory"] = bytes(stored)
    return files


PROBE = r"""
import json, pathlib, re, sys, time
from keras_rpe.checkpoints import CheckpointError, read_torch_file
status = pathlib.Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
results = {}
for name, path in json.loads(sys.argv[1]).items():
    before, start = peak(), time.perf_counter()
    try:
        read_torch_file(path)
        message = ""
    except CheckpointError as error:
        message = str(error)
    results[name] = message, time.perf_counter() - start, peak() - before
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
    assert "would fill" in results["names"][0]
