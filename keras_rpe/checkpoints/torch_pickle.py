"""A reader of the few pickle opcodes that a state dict needs, in which nothing can run.

A pickle is a program for a machine with a stack. `pickle.Unpickler` lets it import and call; the
machine here knows no import, and calls only what a table of the caller holds. Dicts stay lists of
pairs, so that crafted keys cannot make hashing slow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from io import BufferedIOBase
from typing import Any

from keras_rpe.checkpoints.file_names import decoded, shortened
from keras_rpe.checkpoints.pickled_call import PickledCall
from keras_rpe.checkpoints.pickled_dict import PickledDict
from keras_rpe.checkpoints.report import CheckpointError

MAX_PICKLE_BYTES = 64 << 20
MAX_TEXT_BYTES = 16 << 20
# An opcode makes at most some 150 bytes: this keeps a bomb below half a gigabyte.
MAX_OPCODES = 2_000_000


def read_pickle(
    stream: BufferedIOBase,
    names: Mapping[str, Any],
    refusals: Mapping[str, str],
    storage: Callable[[Any], Any],
) -> Any:
    """Read one pickle from a stream, up to and with its last opcode.

    Args:
        stream: The stream, at the first byte of the pickle.
        names: What the pickle may name, as "module.name", and what stands in for it: a
            `PickledCall`, or a plain value.
        refusals: What is refused with a reason of its own, as "module.name".
        storage: Gives the value of a persistent identifier, or raises `CheckpointError`.

    Returns:
        The value: `None`, bool, int, float, str, bytes, tuple, list, `PickledDict`, or what `names`
        and `storage` give.

    Raises:
        CheckpointError: If the pickle is damaged, too large, or needs anything else.

    Example:
        >>> import io, pickle
        >>> from keras_rpe.checkpoints.torch_pickle import read_pickle
        >>> stream = io.BytesIO(pickle.dumps({"a": [1, 2.5]}))
        >>> read_pickle(stream, {}, {}, lambda identifier: None).pairs()
        [('a', [1, 2.5])]
    """
    machine = _Machine(stream, names, refusals, storage)
    for _ in range(MAX_OPCODES):
        code = machine.take(1)
        if code == b".":
            return machine.pop()
        step = _STEPS.get(code)
        if step is None:
            raise CheckpointError(f"uses the pickle opcode {code!r}, which no state dict needs")
        step(machine)
    raise CheckpointError(f"holds a pickle of more than {MAX_OPCODES} opcodes")


class _Machine:
    def __init__(
        self,
        stream: BufferedIOBase,
        names: Mapping[str, Any],
        refusals: Mapping[str, str],
        storage: Callable[[Any], Any],
    ) -> None:
        self.stream = stream
        self.names = names
        self.refusals = refusals
        self.storage = storage
        self.left = MAX_PICKLE_BYTES
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise CheckpointError(f"holds a pickle of more than {MAX_PICKLE_BYTES} bytes")
        self.left -= count
        data = self.stream.read(count)
        if len(data) < count:
            raise CheckpointError("ends in the middle of a pickle")
        return data

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def content(self, layout: str) -> bytes:
        count = self.number(layout)
        if not 0 <= count <= MAX_TEXT_BYTES:
            raise CheckpointError(f"holds a pickle with a text of {count} bytes")
        return self.take(count)

    def line(self) -> str:
        data = self.stream.readline(256)
        self.left -= len(data)
        if not data.endswith(b"\n"):
            raise CheckpointError("holds a pickle with a name that does not end")
        return decoded(data[:-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise CheckpointError("holds a pickle that takes from an empty stack")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        if not self.marks:
            raise CheckpointError("holds a pickle that lacks a mark")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def drop(self) -> None:
        self.pop_mark()

    def skip(self, count: int) -> None:
        self.take(count)

    def pop_one(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise CheckpointError(f"holds a pickle that takes something else for a {kind.__name__}")
        return self.stack[-1]

    def make_tuple(self, count: int) -> None:
        items = tuple(self.pop() for _ in range(count))
        self.push(items[::-1])

    def extend_dict(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise CheckpointError("holds a pickle with a key that has no value")
        self.top(PickledDict).items.extend(items)

    def make_dict(self) -> None:
        items = self.pop_mark()
        self.push(PickledDict())
        self.extend_dict(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.extend_dict([key, value])

    def append(self) -> None:
        value = self.pop()
        self.top(list).append(value)

    def extend_list(self) -> None:
        items = self.pop_mark()
        self.top(list).extend(items)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError("holds a pickle that asks for what it did not store")
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.top(object)

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("holds a pickle with a global whose name is no text")
        full_name = f"{module}.{name}"
        if full_name in self.refusals:
            raise CheckpointError(self.refusals[full_name])
        if full_name not in self.names:
            raise CheckpointError(
                f"names the global {shortened(full_name)}, which is refused: no state dict needs it"
            )
        self.push(self.names[full_name])

    def find_on_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.find(module, name)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, PickledCall) or not isinstance(arguments, tuple):
            raise CheckpointError("holds a pickle that calls something other than a function")
        self.push(function.make(arguments))

    def build(self) -> None:
        # The state of an OrderedDict are the versions of the modules: nothing here needs them.
        self.pop()
        self.top(PickledDict)

    def protocol(self) -> None:
        version = self.number("B")
        if version > 5:
            raise CheckpointError(f"holds a pickle of protocol {version}")


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": lambda m: m.skip(8),  # The length of a frame says nothing new.
    b"(": _Machine.mark,
    b"0": _Machine.pop_one,
    b"1": _Machine.drop,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.push(int.from_bytes(m.content("B"), "little", signed=True)),
    b"G": lambda m: m.push(m.number(">d")),
    b"X": lambda m: m.push(decoded(m.content("<I"))),
    b"\x8c": lambda m: m.push(decoded(m.content("B"))),
    b"T": lambda m: m.push(decoded(m.content("<i"))),  # T and U: text of Python 2.
    b"U": lambda m: m.push(decoded(m.content("B"))),
    b"B": lambda m: m.push(m.content("<I")),
    b"C": lambda m: m.push(m.content("B")),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: m.make_tuple(1),
    b"\x86": lambda m: m.make_tuple(2),
    b"\x87": lambda m: m.make_tuple(3),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_mark()),
    b"a": _Machine.append,
    b"e": _Machine.extend_list,
    b"}": lambda m: m.push(PickledDict()),
    b"d": _Machine.make_dict,
    b"s": _Machine.set_item,
    b"u": lambda m: m.extend_dict(m.pop_mark()),
    b"h": lambda m: m.get(m.number("B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"q": lambda m: m.put(m.number("B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"c": lambda m: m.find(m.line(), m.line()),
    b"\x93": _Machine.find_on_stack,
    b"Q": lambda m: m.push(m.storage(m.pop())),
    b"R": _Machine.call,
    b"b": _Machine.build,
}
