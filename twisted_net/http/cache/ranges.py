"""Byte ranges: ``Range``, ``Content-Range`` and ``If-Range`` (RFC 9110 §14, §13.1.5)."""

from __future__ import annotations

import re

from attrs import frozen

from twisted_net.http.cache.validation import strong_etag
from twisted_net.http.dates import parse_date
from twisted_net.http.fields import HeaderFields

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


@frozen(slots=True)
class ByteRange:
    """
    The single range of a ``Range`` field.

    :param first: index of the first byte; None for a suffix range, of the last :attr:`last` bytes.
    :param last: index of the last byte; None for all up to the end.
    """

    first: int | None
    last: int | None

    def within(self, length: int) -> tuple[int, int] | None:
        """Return start and end (exclusive) in a body of *length* bytes; None if it has no such."""
        if self.first is None:
            count = min(self.last or 0, length)
            return (length - count, length) if count else None
        if self.first >= length:
            return None
        return self.first, length if self.last is None else min(self.last + 1, length)


def parse_range(text: str) -> ByteRange | None:
    """Parse ``Range``; None where it is malformed, in another unit, or has several ranges."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return ByteRange(None, int(last)) if last else None
    if last and int(last) < int(first):
        return None
    return ByteRange(int(first), int(last) if last else None)


def parse_content_range(text: str) -> tuple[int, int, int] | None:
    """
    Parse ``Content-Range``: return start, end (exclusive) and complete length.

    None where it is invalid (RFC 9110 §14.4), in another unit, or the complete length is unknown.
    """
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, length = (int(group) for group in match.groups())
    return (first, last + 1, length) if first <= last < length else None


def covers(text: str, start: int, length: int, complete_length: int | None) -> bool:
    """
    Return whether a stored body covers what ``Range`` asks for.

    :param start: offset of the stored bytes in the complete body.
    :param length: number of the stored bytes.
    :param complete_length: of the complete body; None where the stored body is complete: it
        covers every range, if only with a 416.
    """
    requested = parse_range(text)
    if requested is None or complete_length is None:
        return requested is not None
    found = requested.within(complete_length)
    return found is not None and start <= found[0] and found[1] <= start + length


def range_applies(request: HeaderFields, stored: HeaderFields, wall: float) -> bool:
    """
    Return whether a request has a ``Range`` that applies to the stored response.

    It does not where ``If-Range`` fails (RFC 9110 §13.1.5): an entity tag must match by strong
    comparison; a date must be that of ``Last-Modified``, and a second older than ``Date``, since
    it is no strong validator otherwise (§8.8.2.2).
    """
    if "range" not in request:
        return False
    condition = request.get("if-range")
    if condition is None:
        return True
    condition = condition.strip()
    if condition.endswith('"'):
        return condition == strong_etag(stored)
    moment = parse_date(condition, wall)
    modified = parse_date((stored.first("last-modified") or "").strip(), wall)
    date = parse_date((stored.first("date") or "").strip(), wall)
    return moment is not None and date is not None and moment == modified and modified <= date - 1


def combine_bytes(old: tuple[int, bytes], new: tuple[int, bytes]) -> tuple[int, bytes] | None:
    """
    Combine two parts of one body; return offset and bytes, or None if there is a gap between.

    :param old: offset and bytes of one part.
    :param new: offset and bytes of the other, which wins where they overlap.
    """
    (old_start, old_body), (new_start, new_body) = old, new
    old_end, new_end = old_start + len(old_body), new_start + len(new_body)
    if new_start > old_end or old_start > new_end:
        return None
    before = old_body[: max(0, new_start - old_start)]
    after = old_body[new_end - old_start :] if old_end > new_end else b""
    return min(old_start, new_start), before + new_body + after


def accepts_coding(request: HeaderFields, codings: str) -> bool:
    """
    Return whether a request names all *codings* as acceptable (RFC 9110 §12.5.3), or none at all.

    A range is one of the encoded bytes, which are of no use to a caller who wants them plain.
    """
    accepted = request.get("accept-encoding")
    if accepted is None or not codings.strip():
        return True
    names = {name.partition(";")[0].strip() for name in accepted.lower().split(",")}
    return all(name.strip() in names for name in codings.lower().split(","))
