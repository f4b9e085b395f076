"""Zip archives without compression, as torch writes them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase

from keras_rpe.checkpoints.file_names import decoded, shortened
from keras_rpe.checkpoints.report import CheckpointError

MAX_MEMBERS = 200_000
MAX_DIRECTORY_BYTES = 64 << 20

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True)
class _Member:
    header: int
    start: int
    size: int
    checksum: int


class StoredZip:
    """The members of an archive, each a range of the file; all of it is checked at the start.

    Args:
        stream: The file.
        size: Its length in bytes.

    Raises:
        CheckpointError: If the archive is damaged, compressed or encrypted, its members overlap, or
            a name is there twice or leads out of the archive.

    Example:
        >>> import io, zipfile
        >>> from keras_rpe.checkpoints.stored_zip import StoredZip
        >>> stream = io.BytesIO()
        >>> with zipfile.ZipFile(stream, "w") as archive:
        ...     archive.writestr("a/version", "3")
        >>> bytes(StoredZip(stream, len(stream.getvalue())).read("a/version"))
        b'3'
    """

    def __init__(self, stream: BufferedIOBase, size: int) -> None:
        self._stream = stream
        self._size = size
        count, length, start = self._end()
        if count > MAX_MEMBERS or length > MAX_DIRECTORY_BYTES:
            raise CheckpointError(f"is a zip archive of {count} members, too many to be read")
        self._members = self._directory(count, self._take(start, length), start)
        end = 0
        for member in sorted(self._members.values(), key=lambda m: m.header):
            if member.header < end:
                raise CheckpointError("is a zip archive whose members overlap")
            end = member.start + member.size

    @property
    def names(self) -> list[str]:
        """The names of the members, in the order of the archive."""
        return list(self._members)

    def length(self, name: str) -> int | None:
        """The bytes of a member, or `None` if there is none of that name."""
        member = self._members.get(name)
        return None if member is None else member.size

    def read(self, name: str) -> bytearray:
        """The content of a member.

        Raises:
            CheckpointError: If the content is not what was written.
        """
        member = self._members[name]
        content = self._take(member.start, member.size)
        if zlib.crc32(content) != member.checksum:
            raise CheckpointError(f"is a zip archive whose member {shortened(name)} is damaged")
        return content

    def _take(self, start: int, count: int) -> bytearray:
        # The length is compared with the file before the buffer is made.
        if start + count > self._size:
            raise CheckpointError("is a truncated zip archive")
        content = bytearray(count)
        self._stream.seek(start)
        if self._stream.readinto(content) != count:
            raise CheckpointError("is a truncated zip archive")
        return content

    def _end(self) -> tuple[int, int, int]:
        tail_start = max(0, self._size - _END.size - 0xFFFF)
        tail = self._take(tail_start, self._size - tail_start)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise CheckpointError("is a truncated zip archive")
        _, _, _, _, count, length, start, comment = _END.unpack_from(tail, at)
        end = tail_start + at
        if end + _END.size + comment != self._size:
            raise CheckpointError("is a zip archive with bytes after its end")
        if end >= _LOCATOR.size:
            mark, _, end_64, _ = _LOCATOR.unpack(self._take(end - _LOCATOR.size, _LOCATOR.size))
            if mark == b"PK\x06\x07":
                fields = _END_64.unpack(self._take(end_64, _END_64.size))
                if fields[0] != b"PK\x06\x06":
                    raise CheckpointError("is a damaged zip archive")
                return fields[7], fields[8], fields[9]
        return count, length, start

    def _directory(self, count: int, data: bytearray, end: int) -> dict[str, _Member]:
        members: dict[str, _Member] = {}
        at = 0
        for _ in range(count):
            if len(data) - at < _ENTRY.size:
                raise CheckpointError("is a zip archive with a truncated directory")
            fields = _ENTRY.unpack_from(data, at)
            mark, flags, method, checksum, packed, size = fields[0], *fields[3:5], *fields[7:10]
            name_length, extra_length, comment_length = fields[10:13]
            at += _ENTRY.size
            if mark != b"PK\x01\x02" or len(data) - at < sum(fields[10:13]):
                raise CheckpointError("is a zip archive with a damaged directory")
            raw_name = bytes(data[at : at + name_length])
            extra = bytes(data[at + name_length : at + name_length + extra_length])
            at += name_length + extra_length + comment_length
            name = decoded(raw_name)
            if method != 0 or flags & 1:
                raise CheckpointError(
                    f"is a zip archive with the compressed or encrypted member {shortened(name)}, "
                    "which no state dict has"
                )
            size, packed, header = _long_fields(extra, size, packed, fields[16])
            if packed != size:
                raise CheckpointError("is a zip archive with a damaged directory")
            if name in members:
                raise CheckpointError(f"is a zip archive with the member {shortened(name)} twice")
            if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
                raise CheckpointError(
                    f"is a zip archive with the member {shortened(name)}, which leads out of it"
                )
            start = self._content_start(header, raw_name)
            if start + size > end:
                raise CheckpointError(f"is a zip archive with the member {shortened(name)} cut off")
            members[name] = _Member(header, start, size, checksum)
        return members

    def _content_start(self, header: int, raw_name: bytes) -> int:
        fields = _LOCAL.unpack(self._take(header, _LOCAL.size))
        start = header + _LOCAL.size
        if fields[0] != b"PK\x03\x04" or self._take(start, fields[9]) != raw_name:
            raise CheckpointError("is a zip archive whose directory does not fit its members")
        return start + fields[9] + fields[10]


def _long_fields(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    # Fields that do not fit into 32 bits are all ones, and stand in the extra field 1.
    values = [size, packed, header]
    at = 0
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind != 1:
            continue
        for index, value in enumerate(values):
            if value == 0xFFFFFFFF and len(field) >= 8:
                values[index] = int.from_bytes(field[:8], "little")
                field = field[8:]
    return values[0], values[1], values[2]
