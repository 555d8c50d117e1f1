"""Client pipeline: encodes requests as lines, and matches answers to requests in order."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from twisted_net.errors import BadAnswer
from twisted_net.net.characters import CONTROL_CHARACTER
from twisted_net.net.redaction import shown_unknown
from twisted_net.net.untrusted_json import JsonDecoder, has_more_values
from twisted_net.tcp.line_framer import LineFramer

Call = TypeVar("Call")

Answer = dict[str, Any]
"""An answer or an event, decoded: the members are any JSON."""


def encode_request(words: Sequence[str]) -> bytes:
    r"""
    Encode a command and its arguments as the line that the server parses.

    Arguments that are empty, contain a space or a tab, or begin with a quote are quoted, and those
    that would make the line look like a request of HTTP.

    :return: the line with its LF.
    :raises TypeError: for a word that is not text.
    :raises ValueError: if the command is missing or invalid, or for a surrogate or a control
        character other than a tab. So no argument ever becomes a second line. No argument is
        repeated: it may be a password.
    """
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"argument {i} must be text, not {type(word).__name__}")
    if not words or not _COMMAND.fullmatch(words[0]) or _UNSENDABLE.search(words[0]):
        raise ValueError(f"{shown_unknown(words[0]) if words else ''!r} is not a command")
    for i, word in enumerate(words):
        if found := _UNSENDABLE.search(word):
            where = f"U+{ord(found[0]):04X} at position {found.start()}"
            raise ValueError(f"argument {i} has {where}, a character that cannot be sent")
    return (" ".join([words[0], *map(_quoted, words[1:])]) + "\n").encode()


class Pipeline(Generic[Call]):
    """
    Matches answers to calls on one connection: they arrive in the order of the calls.

    :param max_line: longest answer or event, in bytes.
    :param max_values: JSON values of an answer or event.
    :ivar line: the one that was returned last, undecoded; empty between two calls of
        :meth:`receive`.
    """

    def __init__(self, max_line: int, max_values: int) -> None:
        self.line = b""
        self._framer = LineFramer(max_line)
        self._max_line = max_line
        self._max_values = max_values
        self._waiting: deque[tuple[str, Call]] = deque()

    def __len__(self) -> int:
        """How many answers are still to come."""
        return len(self._waiting)

    def expect(self, command: str, call: Call) -> None:
        """Register a request that was sent; *call* is returned with its answer."""
        self._waiting.append((command.upper(), call))

    def receive(self, data: bytes) -> Iterator[tuple[Call | None, Answer]]:
        """
        Process the next bytes, and iterate over the answers in them, each with its call.

        An event has None in place of a call.

        :raises BadAnswer: at a line that cannot be the answer to its call. Then nothing that
            follows on this connection can be matched.
        """
        for line in self._framer.feed(data):
            if line is None:
                raise BadAnswer(f"a line of the server is longer than {self._max_line} bytes")
            # Before it is decoded: a value of two bytes takes a hundred, and half a microsecond.
            if has_more_values(line, self._max_values):
                raise BadAnswer(f"a line of the server has more than {self._max_values} values")
            self.line = line
            try:
                answer = _decode(line)
            except ValueError as error:
                raise BadAnswer(f"a line of the server is not a JSON object: {error}") from None
            if "event" in answer:
                yield None, answer
                continue
            if not self._waiting:
                raise BadAnswer(f"an answer came without a request: {_shown(answer)}")
            command, call = self._waiting[0]
            if answer.get("command", command) != command:
                raise BadAnswer(f"the answer to {command} was expected, not {_shown(answer)}")
            self._waiting.popleft()
            yield call, answer
        self.line = b""

    def lost(self) -> list[Call]:
        """Remove and return the calls that will get no answer, oldest first."""
        calls = [call for _, call in self._waiting]
        self._waiting.clear()
        return calls


_decode: JsonDecoder[Answer] = JsonDecoder(dict[str, Any])
# Surrogates stand for bytes of a command line that are no UTF-8.
_UNSENDABLE = re.compile(rf"{CONTROL_CHARACTER.pattern}|[\ud800-\udfff]")
_COMMAND = re.compile(r'[^ \t"][^ \t]*')
# A version of a protocol makes a line that of another protocol, see foreign_protocols.py.
_QUOTED = re.compile(r'\A\Z|[ \t]|\A"|\A(?:HTTP|ICAP|RTSP|SIP)/[0-9]')


def _quoted(word: str) -> str:
    if not _QUOTED.search(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _shown(answer: Answer) -> str:
    """Return a short description of an answer, for an error message."""
    return str(answer.get("error") or answer.get("command") or "another")[:100]
