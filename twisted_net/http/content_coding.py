"""
Brotli and zstd (RFC 7932, RFC 8878), where the packages that undo them are installed.

These are ``brotli``, and ``backports.zstd`` or Python 3.14: the extra ``compression`` has both.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.http.bodies import CHUNK, BodyRelay, is_complete
from twisted_net.http.errors import BadResponse, BodyTooLarge

WINDOW_LOG = 23
"""Memory that a zstd body may ask for, as a power of two: the 8 MiB of RFC 9659."""


def _load(*names: str) -> Any:  # Any: a module, which may not be there
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


_brotli = _load("brotli")
_zstd = _load("compression.zstd", "backports.zstd")


class _Brotli:
    def __init__(self) -> None:
        self._inner = _brotli.Decompressor()

    def undo(self, data: bytes) -> bytes:
        """Give about a piece of what *data*, and what was given before, comes to."""
        piece: bytes = self._inner.process(data, output_buffer_limit=CHUNK)
        return piece

    @property
    def over(self) -> bool:
        """Whether the end of the coding was found."""
        return bool(self._inner.is_finished())

    @property
    def left(self) -> bytes:
        """What came after the end; it raises an error itself where there is something."""
        return b""


class _Zstd:
    def __init__(self) -> None:
        limits = {_zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        self._inner = _zstd.ZstdDecompressor(options=limits)

    def undo(self, data: bytes) -> bytes:
        """Give at most a piece of what *data*, and what was given before, comes to."""
        piece: bytes = self._inner.decompress(data, CHUNK)
        return piece

    @property
    def over(self) -> bool:
        """Whether the end of the coding was found."""
        return bool(self._inner.eof)

    @property
    def left(self) -> bytes:
        """What came after the end."""
        rest: bytes = self._inner.unused_data
        return rest


DECODERS: dict[bytes, Callable[[], _Brotli | _Zstd]] = {}
"""What undoes each coding that can be undone here."""

_ERRORS: tuple[type[Exception], ...] = ()
if _brotli is not None:
    DECODERS[b"br"] = _Brotli
    _ERRORS += (_brotli.error,)
if _zstd is not None:
    DECODERS[b"zstd"] = _Zstd
    _ERRORS += (_zstd.ZstdError, EOFError)


class Decompressor(BodyRelay):
    """Undoes one of these codings, piece by piece, up to a limit."""

    def __init__(self, receiver: IProtocol, coding: bytes, limit: int) -> None:
        super().__init__(receiver)
        self._coding = coding.decode()
        self._decoder = DECODERS[coding]()
        self._limit = limit
        self._total = 0
        self._begun = False

    @override
    def dataReceived(self, data: bytes) -> None:
        self._begun = True
        while not self._over:
            try:
                piece = self._decoder.undo(data)
            except _ERRORS:
                self.fail(BadResponse(f"its {self._coding} body is damaged"))
                return
            data = b""
            self._total += len(piece)
            if self._total > self._limit:
                self.fail(BodyTooLarge(self._limit, decoded=True))
                return
            if piece:
                self._receiver.dataReceived(piece)
            if self._decoder.over and self._decoder.left:
                self.fail(BadResponse(f"its {self._coding} body goes on after its end"))
                return
            # A full piece may leave output inside the decompressor, its input all used up.
            if self._decoder.over or len(piece) < CHUNK:
                return

    @override
    def finish(self, reason: Failure) -> None:
        if not self._over and is_complete(reason) and self._begun and not self._decoder.over:
            reason = Failure(BadResponse(f"its {self._coding} body ends early"))
        super().finish(reason)
