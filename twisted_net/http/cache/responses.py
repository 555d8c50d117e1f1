"""What is served from a stored answer: all of it, a part, or word that nothing has changed."""

from __future__ import annotations

from attrs import field, frozen

from twisted_net.http.cache import ranges, validation
from twisted_net.http.cache.entry import (
    OWN_CONDITIONS,
    TELLING,
    CacheRequest,
    Entry,
)
from twisted_net.http.fields import HeaderFields


@frozen(slots=True)
class Answer:
    """What is served: :attr:`fields` have the age of the answer."""

    status: int
    reason: str
    fields: HeaderFields
    body: bytes = field(repr=False)


def answer(request: CacheRequest, entry: Entry, age: float) -> Answer:
    """
    Give what is served from an entry: all of it, a part, or word that nothing has changed.

    :param age: in seconds, as :class:`Fresh` has it.
    """
    fields = request.fields
    served = entry.fields.replaced([("Age", str(int(age)))])
    body = entry.body if request.method == "GET" else b""
    if fields.has_none(TELLING) or entry.status not in (200, 206):
        return Answer(entry.status, entry.reason, served, body)
    if not fields.has_none(OWN_CONDITIONS) and validation.unmodified(
        fields, entry.fields, entry.response_time
    ):
        return Answer(304, "Not Modified", served.without(("content-length",)), b"")
    # A range is for GET alone (RFC 9110 §14.2).
    if request.method == "GET" and ranges.wants_part(fields, entry.fields, entry.response_time):
        asked = ranges.parse_range(fields["range"])
        total = len(entry.body) if entry.total is None else entry.total
        if asked is not None:
            return _part(asked.within(total), entry, total, served)
    return Answer(entry.status, entry.reason, served, body)


def _part(found: tuple[int, int] | None, entry: Entry, total: int, served: HeaderFields) -> Answer:
    """A 206 with these bytes, or the 416 that says that there are none."""
    if found is None:
        fields = HeaderFields([("Content-Range", f"bytes */{total}"), ("Content-Length", "0")])
        return Answer(416, "Range Not Satisfiable", fields, b"")
    first, end = found
    served = served.replaced(
        [
            ("Content-Range", f"bytes {first}-{end - 1}/{total}"),
            ("Content-Length", str(end - first)),
        ]
    )
    body = entry.body[first - entry.start : end - entry.start]
    return Answer(206, "Partial Content", served, body)
