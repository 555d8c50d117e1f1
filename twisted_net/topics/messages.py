"""Messages of topics: encoded once for all who receive them."""

from __future__ import annotations

from typing import Protocol

import msgspec

from twisted_net.net.untrusted_json import JsonDecoder


class JsonText:
    """
    A JSON text that came from outside, and is passed on as it is.

    :param raw: valid JSON in UTF-8, on one line.
    :param value: what it stands for.
    """

    __slots__ = ("raw", "value")

    def __init__(self, raw: bytes, value: object) -> None:
        self.raw = raw
        self.value = value


def structure_of(text: str) -> JsonText | str:
    """
    Return a text that is a JSON object or array as such, and any other as it is.

    A number or a word that is JSON too stays a text: clients send these as such.
    """
    if text[:1] not in ("{", "["):
        return text
    # Valid JSON has the ends of lines between its values alone.
    raw = text.replace("\n", " ").replace("\r", " ").encode()
    try:
        return JsonText(raw, _decode(raw))
    except msgspec.DecodeError:
        return text


class TopicMessage:
    """
    A message, encoded once for all its receivers.

    :param value: a text, or what JSON has: a mapping, a list, a number …
    :param id: larger than that of each message before.
    :param time: when it was published, as shown to people; None if there is no clock.
    :param sender: the user, or else the client, that published it; None for the application.
    :ivar line: the event as it goes over the wire, with its LF; all receivers share these bytes.
    :raises TypeError: for a value that JSON cannot represent.
    """

    __slots__ = ("id", "line", "sender", "time", "topic", "value")

    def __init__(
        self,
        topic: str,
        value: object,
        id: int = 0,  # noqa: A002  # the member's name
        time: str | None = None,
        sender: str | None = None,
    ) -> None:
        self.topic = topic
        message = value
        if isinstance(value, JsonText):
            message, value = msgspec.Raw(value.raw), value.value
        self.value = value
        self.id = id
        self.time = time
        self.sender = sender
        event = {"event": "message", "topic": topic, "message": message, "id": id}
        if time is not None:
            event["time"] = time
        if sender is not None:
            event["sender"] = sender
        self.line = _encode(event) + b"\n"

    def as_retained(self) -> TopicMessage:
        """Return the message for who has subscribed since, which says so."""
        other = TopicMessage.__new__(TopicMessage)
        other.topic, other.value, other.id = self.topic, self.value, self.id
        other.time, other.sender = self.time, self.sender
        other.line = self.line[:-2] + b',"retained":true}\n'
        return other

    @property
    def text(self) -> str:
        """The message as a text: itself, or its JSON."""
        if isinstance(self.value, str):
            return self.value
        return bytes(_members(self.line)["message"]).decode()


class _StoredMessage(msgspec.Struct):
    """The members of a message that came from a file."""

    topic: str
    message: msgspec.Raw
    id: int
    time: str | None = None
    sender: str | None = None


def message_from_line(line: bytes) -> TopicMessage:
    """
    Return the message of a line, see :attr:`TopicMessage.line`.

    :raises msgspec.DecodeError: if it is none.
    """
    event = _decode_event(line)
    raw = bytes(event.message)
    value = _decode(raw)
    return TopicMessage(
        event.topic,
        value if isinstance(value, str) else JsonText(raw, value),
        event.id,
        event.time,
        event.sender,
    )


_decode_event = msgspec.json.Decoder(_StoredMessage).decode
_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode: JsonDecoder[object] = JsonDecoder(object)


class EventLine:
    """
    An event for one client that waits behind the messages of its topics.

    :ivar line: as it goes over the wire, with its LF.
    """

    __slots__ = ("line",)

    def __init__(self, line: bytes) -> None:
        self.line = line


class Subscriber(Protocol):
    """A receiver of messages; hashable by identity."""

    def take(self, message: TopicMessage) -> bool:
        """Accept a message without waiting; return False if it is dropped."""
        ...
