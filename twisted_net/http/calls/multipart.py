"""Forms with files: ``multipart/form-data`` (RFC 7578), from what requests and treq take."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from os.path import basename
from typing import Any

from attrs import frozen

from twisted_net.config.type_checks import shown
from twisted_net.http.calls.upload import (
    ReadableFile,
    check_readable,
    file_length,
    file_pieces,
)

FileContent = bytes | str | ReadableFile
"""The content of a file: as it is, text as UTF-8, or an open file."""

FilePart = (
    FileContent
    | tuple[str | None, FileContent]
    | tuple[str | None, FileContent, str | None]
    | tuple[str | None, str | None, FileContent]
)
"""
A file of ``files=``: its content, or a tuple of its name, its content and its type.

The type may stand last, as with requests, or between name and content, as with treq. A name that is
None makes a plain field of it.
"""

Files = Mapping[str, FilePart] | Sequence[tuple[str, FilePart]]
"""What ``files`` may be: by the names of their fields, which pairs may repeat."""

_BYTES = (bytes, bytearray, memoryview)


@frozen
class _Part:
    head: bytes
    content: bytes | ReadableFile


@frozen
class MultipartForm:
    """
    A form with files, ready to be sent.

    :param boundary: a line that separates the parts; it must not occur in any of them.
    """

    parts: list[_Part]
    boundary: str

    @property
    def content_type(self) -> str:
        """The value of ``Content-Type``."""
        return f"multipart/form-data; boundary={self.boundary}"

    def in_memory(self) -> bytes | None:
        """Return the whole body, or None if any part of it is a file."""
        pieces = list(self.pieces()) if all(_is_bytes(part.content) for part in self.parts) else []
        return b"".join(pieces) if pieces else None

    def length(self) -> int | None:
        """Return the bytes of the body; None where that of a file cannot be known."""
        total = len(self._end())
        for part in self.parts:
            content = part.content
            size = len(content) if isinstance(content, bytes) else file_length(content)
            if size is None:
                return None
            total += len(self._begin()) + len(part.head) + size + 2
        return total

    def pieces(self) -> Iterator[bytes]:
        """Iterate over the body; its files are read once."""
        for part in self.parts:
            yield self._begin() + part.head
            if isinstance(part.content, bytes):
                yield part.content
            else:
                for piece in file_pieces(part.content):
                    yield piece.encode() if isinstance(piece, str) else bytes(_buffer(piece))
            yield b"\r\n"
        yield self._end()

    def _begin(self) -> bytes:
        return f"--{self.boundary}\r\n".encode()

    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def multipart_form(
    fields: Iterable[tuple[str, str]], files: object, boundary: str
) -> MultipartForm:
    """
    Return the form of *fields*, then *files*, each in their order.

    :param files: see :data:`Files`.
    :raises TypeError: for files in no known form.
    """
    parts = [_part(name, None, None, value) for name, value in fields]
    for name, value in _pairs(files):
        filename, content, kind = _unpacked(name, value)
        parts.append(_part(name, filename, kind, content))
    return MultipartForm(parts, boundary)


def _pairs(files: object) -> list[tuple[str, object]]:
    items: Any = list(files.items()) if isinstance(files, Mapping) else files
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise TypeError(
            "files must be a mapping, or a list of pairs, of the name of a field and a file, not"
            f" {shown(files)}"
        )
    for item in items:
        if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[0], str):
            raise TypeError("files: each must be a pair of the name of a field and a file")
    return list(items)


def _unpacked(field: str, value: object) -> tuple[str | None, object, str | None]:
    """Return name, content and type of a file."""
    if not isinstance(value, tuple):
        name = getattr(value, "name", None)
        # Open files have a name; that of an anonymous one is a number.
        filename = basename(name) if isinstance(name, str) and name else field
        return filename, value, None
    filename, content, kind = (*value, None)[:3] if len(value) in (2, 3) else (0, None, None)
    if kind is not None and not isinstance(kind, str):
        # treq has the type before the content.
        content, kind = kind, content
    if not isinstance(filename, str | None) or not isinstance(kind, str | None):
        raise TypeError(
            f"files: {field} must be a file, (name, file), (name, file, type) or (name, type, file)"
        )
    return filename, content, kind


def _part(name: str, filename: str | None, kind: str | None, content: object) -> _Part:
    head = f'Content-Disposition: form-data; name="{_escaped(name)}"'
    if filename is not None:
        head += f'; filename="{_escaped(filename)}"'
        kind = kind or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    if kind is not None:
        if not kind.isprintable() or not kind.isascii():
            raise ValueError(f"files: the type of {name} must be like text/plain")
        head += f"\r\nContent-Type: {kind}"
    # As octets where a name of a file is no UTF-8.
    octets = f"{head}\r\n\r\n".encode("utf-8", "surrogateescape")
    return _Part(octets, _content(name, content))


def _content(name: str, content: Any) -> bytes | ReadableFile:  # Any: as a caller passed it
    if isinstance(content, str):
        return content.encode("utf-8", "surrogateescape")
    if isinstance(content, _BYTES):
        return bytes(content)
    if callable(getattr(content, "read", None)):
        file: ReadableFile = content
        check_readable(file, f"files: the content of {name}")
        return file
    hint = '; open it: open(path, "rb")' if isinstance(content, PathLike) else ""
    raise TypeError(
        f"files: the content of {name} must be bytes, text or an open file, not"
        f" {shown(content)}{hint}"
    )


def _escaped(text: str) -> str:
    """Escape a name as browsers do (WHATWG HTML §4.10.21.8), so that it cannot end its line."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _is_bytes(content: bytes | ReadableFile) -> bool:
    return isinstance(content, bytes)


def _buffer(piece: object) -> Any:  # Any: bytes, or what has their form
    if not isinstance(piece, _BYTES):
        raise TypeError(f"files: a file must return bytes or text, not {shown(piece)}")
    return piece
