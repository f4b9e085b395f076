"""Mutated files through every reader: each is read, or refused with the reader's own error."""

from __future__ import annotations

import json
import struct
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from checkpoints.checkpoint_fixtures import (
    Storage,
    call,
    older_file,
    pickled,
    tensor,
    zipped,
)
from checkpoints.matconvnet_fixtures import Dagnn, write

from keras_rpe.checkpoints import (
    CheckpointError,
    read_matconvnet,
    read_safetensors,
    read_torch_file,
)

MAX_SECONDS = 5.0
MAX_BYTES = 64 << 20
INTERESTING = [0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**62]


class Row(NamedTuple):
    name: str
    suffix: str
    seed: Callable[[], bytes]  # A well-formed content.
    reader: Callable[[Path], Any]
    pack: Callable[[bytes], bytes] = bytes  # Makes a file whose checksums fit a mutant.


def torch_values() -> tuple[dict[str, Any], list[Storage]]:
    floats = Storage("0", np.linspace(0, 1, 24, dtype="f4"))
    ints = Storage("1", np.arange(6))
    halves = Storage("2", np.arange(8, dtype="u2"), "torch.BFloat16Storage")
    value = {
        "epoch": 3,
        "state_dict": {
            "module.a.weight": tensor(floats, 0, (4, 6), (1, 4)),
            "module.a.bias": call(
                "torch._utils._rebuild_parameter", tensor(floats, 3, (2,)), 1, {}
            ),
            "module.b": tensor(ints),
            "module.c": tensor(halves, 1, (3,)),
        },
        "size": call("torch.Size", (1, 2)),
    }
    return value, [floats, ints, halves]


def zip_around(data: bytes) -> bytes:
    members = {"data.pkl": data}
    for storage in torch_values()[1]:
        members[f"data/{storage.key}"] = storage.values.tobytes()
    return zipped({f"archive/{name}": content for name, content in members.items()})


def safetensors_file() -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "BOOL", "shape": [], "data_offsets": [32, 33]},
        "d": {"dtype": "I64", "shape": [0, 3], "data_offsets": [33, 33]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(range(33))


def matlab(writer: str) -> bytes:
    net = Dagnn()
    net.norm("bn", net.conv("conv", "x", (1, 1, 3, 2), bias=True), 2)
    net.conv("large", "conv", (3, 3, 8, 9))  # Compressed in pieces in version 7.3.
    net.average_image = np.ones((1, 1, 3))
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "net.mat", net.tree(), writer, snapshot=True).read_bytes()


ROWS = [
    Row("matlab-5", ".mat", lambda: matlab("v5"), read_matconvnet),
    Row("matlab-7.3", ".mat", lambda: matlab("v7.3"), read_matconvnet),
    Row("torch-pickle", ".pth", lambda: pickled(torch_values()[0]), read_torch_file,
        pack=zip_around),
    Row("torch-zip", ".pth", lambda: zip_around(pickled(torch_values()[0])), read_torch_file),
    Row("torch-older", ".pth", lambda: older_file(*torch_values()), read_torch_file),
    Row("safetensors", ".safetensors", safetensors_file, read_safetensors),
]  # fmt: skip


def mutant(seed: bytes, random: np.random.Generator) -> bytes:
    """A content with one to four mutations."""
    content = bytearray(seed)
    for _ in range(random.integers(1, 5)):
        at, other = (int(i) for i in random.integers(0, len(content) + 1, 2))
        length = int(2 ** random.uniform(0, np.log2(len(content) + 2)))
        digits = [i for i, byte in enumerate(content) if 0x30 <= byte <= 0x39]
        kind = random.integers(7)
        if kind == 0:
            content[at : at + 1] = bytes([int(random.integers(256))])
        elif kind == 1:
            content[at : at + length] = random.bytes(length)
        elif kind == 2:
            del content[at : at + length]
        elif kind == 3:
            content[at:at] = content[other : other + length]
        elif kind == 4 and random.random() < 0.2:
            del content[at:]
        elif kind == 5 and digits:
            i = digits[random.integers(len(digits))]
            content[i : i + 1] = str(INTERESTING[random.integers(len(INTERESTING))]).encode()
        else:
            width = int(random.choice([1, 2, 4, 8]))
            number = INTERESTING[random.integers(len(INTERESTING))] + int(random.integers(3))
            field = number % 2 ** (8 * width)
            content[at : at + width] = field.to_bytes(width, random.choice(["little", "big"]))
    return bytes(content)


def refused(row: Row, folder: Path, count: int, expected: type[Exception] = CheckpointError) -> int:
    """Read mutants; return how many were refused."""
    path = folder / f"mutant{row.suffix}"
    seed = row.seed()
    path.write_bytes(row.pack(seed))
    row.reader(path)
    number = 0
    tracemalloc.start()
    try:
        for index in range(count):
            random = np.random.default_rng([zlib.crc32(row.name.encode()), index])
            path.write_bytes(row.pack(mutant(seed, random)))
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            message = ""
            try:
                row.reader(path)
            except expected as error:
                message = str(error)
                number += 1
            except BaseException as error:
                error.add_note(f"mutant {index} of {row.name}")
                raise
            assert "\n" not in message, (row.name, index)
            assert time.process_time() - start < MAX_SECONDS, (row.name, index)
            assert tracemalloc.get_traced_memory()[1] - before < MAX_BYTES, (row.name, index)
    finally:
        tracemalloc.stop()
    return number


@pytest.mark.parametrize("count", [50, pytest.param(50_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_mutants(row: Row, count: int, tmp_path: Path) -> None:
    assert refused(row, tmp_path, count) > 0.3 * count
