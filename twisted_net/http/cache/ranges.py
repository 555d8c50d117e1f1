"""Parts of a body: what ``Range`` asks for and ``Content-Range`` says (RFC 9110 §14)."""

from __future__ import annotations

import re

from attrs import frozen

from twisted_net.http.cache.validation import strong_etag
from twisted_net.http.dates import parse_date
from twisted_net.http.fields import HeaderFields

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


@frozen(slots=True)
class Asked:
    """
    The one range that a request asks for.

    :param first: the first byte, or None for the last :attr:`last` bytes of all.
    :param last: the last byte, or None for all up to the end.
    """

    first: int | None
    last: int | None

    def within(self, total: int) -> tuple[int, int] | None:
        """Give start and end (exclusive) in a body of *total* bytes; None where none is there."""
        if self.first is None:
            count = min(self.last or 0, total)
            return (total - count, total) if count else None
        if self.first >= total:
            return None
        return self.first, total if self.last is None else min(self.last + 1, total)


def parse_range(text: str) -> Asked | None:
    """Read ``Range``; None where it is malformed, in another unit, or asks for several parts."""
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return Asked(None, int(last)) if last else None
    if last and int(last) < int(first):
        return None
    return Asked(int(first), int(last) if last else None)


def parse_content_range(text: str) -> tuple[int, int, int] | None:
    """
    Read ``Content-Range``: start, end (exclusive) and the length of the whole.

    None where it is invalid (RFC 9110 §14.4), in another unit, or where the length is unknown.
    """
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        return None
    first, last, total = (int(group) for group in match.groups())
    return (first, last + 1, total) if first <= last < total else None


def covers(text: str, start: int, length: int, total: int | None) -> bool:
    """
    Say whether what a ``Range`` asks for lies in a stored part, so that it can be answered.

    :param start: where in the whole the part starts, :param length: of the part.
    :param total: length of the whole; None where the part is the whole, which answers all.
    """
    asked = parse_range(text)
    if asked is None or total is None:
        return asked is not None
    found = asked.within(total)
    return found is not None and start <= found[0] and found[1] <= start + length


def wants_part(request: HeaderFields, stored: HeaderFields, wall: float) -> bool:
    """
    Say whether the ``Range`` of a request counts: not if its ``If-Range`` speaks of another body.

    RFC 9110 §13.1.5: an entity tag must match strongly; a date must be that of
    ``Last-Modified``, and by a second older than ``Date``, since it is no strong validator
    otherwise (§8.8.2.2).
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


def combined(old: tuple[int, bytes], new: tuple[int, bytes]) -> tuple[int, bytes] | None:
    """
    Give two parts of one body as one part, or None where there is a gap between them.

    :param old: where it starts, and its bytes. Where both overlap, *new* is taken.
    """
    (old_start, old_body), (new_start, new_body) = old, new
    old_end, new_end = old_start + len(old_body), new_start + len(new_body)
    if new_start > old_end or old_start > new_end:
        return None
    before = old_body[: max(0, new_start - old_start)]
    after = old_body[new_end - old_start :] if old_end > new_end else b""
    return min(old_start, new_start), before + new_body + after
