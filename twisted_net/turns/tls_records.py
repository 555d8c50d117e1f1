"""TLS records: cuts what a peer sends into pieces of a known number of them."""

from __future__ import annotations

RECORD_HEADER = 5
"""Bytes before the content of a record, the last two of which are its length (RFC 8446 §5.1)."""

_ALERT, _DATA = 21, 23

_ALERT_LENGTH = 19
"""That of an encrypted alert of TLS 1.3, which is sent as data: two bytes, its type and a tag."""


def has_alert(records: bytes, begin: int = 0) -> bool:
    """
    Return whether there is an alert among records, as far as their headers tell.

    One of TLS 1.3 that is padded is not found; two bytes of data, which look the same, are.

    :param begin: where the first of them begins.
    """
    while begin + RECORD_HEADER <= len(records):
        kind = records[begin]
        length = records[begin + 3] << 8 | records[begin + 4]
        if kind == _ALERT or (kind == _DATA and length == _ALERT_LENGTH):
            return True
        begin += RECORD_HEADER + length
    return False


class RecordCutter:
    """
    Cuts the stream of one peer into pieces of a known number of records.

    A piece ends with a record, but for the last one: that of which more is to come is passed on as
    it comes. Only a header is kept until it is whole. What is no TLS at all is cut somewhere.
    """

    __slots__ = ("_begin", "_kept", "_missing")

    def __init__(self) -> None:
        self._kept = b""
        self._begin = 0  # what is before it has been taken
        self._missing = 0  # bytes of the last record taken that have not come

    def __len__(self) -> int:
        """How many bytes are kept."""
        return len(self._kept) - self._begin

    @property
    def unfinished(self) -> bool:
        """Whether more is to come of the last record that was taken."""
        return self._missing > 0

    @property
    def missing(self) -> int:
        """Bytes of the last record that was taken that are still to come."""
        return self._missing

    def has_alert(self, more: bytes = b"") -> bool:
        """Return whether there is an alert in what is kept, or in *more* that is to come."""
        if not (self._kept or more):
            return False
        return has_alert(self._kept[self._begin :] + more, self._missing)

    @property
    def ready(self) -> bool:
        """Whether there is a piece to take."""
        size = len(self._kept) - self._begin
        return size >= RECORD_HEADER or (size > 0 and self._missing > 0)

    def keep(self, data: bytes) -> None:
        """Keep the next bytes until they are taken."""
        self._kept = self._kept[self._begin :] + data if self._kept else data
        self._begin = 0

    def is_record(self, data: bytes) -> bool:
        """Whether the next bytes are one record, whole, and may be passed on without being kept."""
        size = len(data)
        return (
            size > RECORD_HEADER
            and size == RECORD_HEADER + (data[3] << 8 | data[4])
            and not (self._kept or self._missing)
        )

    def clear(self) -> None:
        """Drop what is kept."""
        self._kept, self._begin = b"", 0

    def take(self, limit: int) -> tuple[bytes, int]:
        """
        Take a piece.

        :param limit: records that may end in it.
        :return: the piece, empty where nothing is ready, and how many records end in it.
        """
        kept, begin = self._kept, self._begin
        size = len(kept)
        usual = not (begin or self._missing) and size >= RECORD_HEADER
        if usual and size == RECORD_HEADER + (kept[3] << 8 | kept[4]):
            self._kept = b""
            return kept, 1
        end, ended = begin + self._missing, 0
        if self._missing and end <= size:
            ended = 1
        while ended < limit and end + RECORD_HEADER <= size:
            end += RECORD_HEADER + int.from_bytes(kept[end + 3 : end + RECORD_HEADER])
            ended += end <= size
        self._missing = max(end - size, 0)
        end = min(end, size)
        self._begin = end
        if end == size:
            self.clear()
        return kept[begin:end] if begin or end < size else kept, ended
