"""Server-sent events: parses ``text/event-stream`` as the WHATWG's HTML standard says (§9.2.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from twisted_net.http.errors import BodyItemTooLong

MAX_EVENT = 2**20
"""Bytes of one event, and of one of its lines: its data is one in most streams."""

_LINE_END = re.compile(rb"\r\n?|\n")
_BOM = b"\xef\xbb\xbf"
_MAX_RETRY_DIGITS = 9  # of milliseconds: eleven days; more is no time to wait


@frozen
class ServerSentEvent:
    """
    An event of a stream.

    :param type: its name; ``message`` where the server names none.
    :param data: its lines, joined by line feeds.
    :param last_event_id: the last one that the server has sent, which may be of an event before;
        a client that connects again sends it as ``Last-Event-ID``. "" for none.
    :param retry: seconds that the server last asked to wait before connecting again; None if it
        did not.
    """

    type: str
    data: str
    last_event_id: str = ""
    retry: float | None = None


class EventParser:
    """
    Parses a stream of events; how it is cut into pieces does not matter.

    An event that is not ended by an empty line is incomplete, and none (§9.2.6).

    :param max_event: limit of the bytes of one event with all its lines.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._pieces: list[bytes] = []  # of a line that is not complete
        self._size = 0  # of the event so far, with the beginning of its next line
        self._after_return = False
        self._first = True
        self._type = ""
        self._data: list[str] = []
        self._last_id = ""
        self._retry: float | None = None

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """
        Take the next bytes, and iterate over the events that they complete.

        The iterator must be exhausted before the next call.

        :raises BodyItemTooLong: for an event over the limit.
        """
        at = 0
        if self._after_return and data:
            # A line feed after a carriage return is of the same end.
            self._after_return = False
            at = data.startswith(b"\n")
        for end in _LINE_END.finditer(data, at):
            self._add(data[at : end.start()])
            at = end.end()
            line, self._pieces = b"".join(self._pieces), []
            if end[0] == b"\r" and at == len(data):
                self._after_return = True
            event = self._line(line)
            if event is not None:
                yield event
        self._add(data[at:])

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_event:
            raise BodyItemTooLong("event", self._max_event)
        if piece:
            self._pieces.append(piece)

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        # Each line has a size of its own, so that empty ones are counted, too.
        self._size += 1
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value) / 1000 if len(value) <= _MAX_RETRY_DIGITS else self._retry
        elif not name:
            # A comment is of no event: a stream may consist of nothing else.
            self._size -= len(line) + 1
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, self._data = self._data, []
        kind, self._type = self._type, ""
        self._size = 0
        if not data:
            return None
        return ServerSentEvent(kind or "message", "\n".join(data), self._last_id, self._retry)
