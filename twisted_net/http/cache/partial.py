"""Partial responses: stores incomplete ones and combines parts (RFC 9111 §3.3, §3.4)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from twisted_net.http.cache import ranges, validation
from twisted_net.http.cache.entry import CacheRequest, Entry


def combine(stored: Sequence[Entry], new: Entry) -> Entry:
    """
    Return a partial response, combined with a stored part of the same body (RFC 9111 §3.4).

    Only parts with the same strong entity tag are certain to be of the same body. Where no stored
    part can be combined with *new*, that is returned as it is.
    """
    old = next((e for e in stored if (e.vary, e.variant) == (new.vary, new.variant)), None)
    etag = validation.strong_etag(new.fields)
    if (
        old is None
        or etag is None
        or old.status not in (200, 206)
        or validation.strong_etag(old.fields) != etag
        or new.complete_length
        != (len(old.body) if old.complete_length is None else old.complete_length)
    ):
        return _as_complete(new)
    both = ranges.combine_bytes((old.start, old.body), (new.start, new.body))
    if both is None:
        return new
    fields = validation.updated_fields(old.fields, new.fields).without(("content-length",))
    return _as_complete(evolve(new, fields=fields, start=both[0], body=both[1]))


def incomplete_response(request: CacheRequest, entry: Entry, length: int | None) -> Entry | None:
    """
    Return the partial response to store for a body that broke off (RFC 9111 §3.3).

    None where the rest could not be requested later: without a strong entity tag, for instance; and
    for other methods than GET.

    :param entry: made of the bytes that were received.
    :param length: complete length by the server's ``Content-Length``; None where unknown.
    """
    usable = (
        request.method == "GET"
        and entry.status == 200
        and length is not None
        and 0 < len(entry.body) < length
        and validation.strong_etag(entry.fields) is not None
    )
    if not usable:
        return None
    fields = entry.fields.without(("content-length", "content-range"))
    return evolve(
        entry, status=206, reason="Partial Content", fields=fields, complete_length=length
    )


def _as_complete(entry: Entry) -> Entry:
    """Return a partial response as a complete one (200) if no byte is missing."""
    length = entry.complete_length
    if length is None or entry.start != 0 or len(entry.body) != length:
        return entry
    fields = entry.fields.replaced([("Content-Length", str(length))])
    return evolve(entry, status=200, reason="OK", fields=fields, complete_length=None)
