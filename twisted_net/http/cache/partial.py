"""Stored parts of a body: put together, and kept of a body that broke off (RFC 9111 §3.3, §3.4)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from twisted_net.http.cache import ranges, validation
from twisted_net.http.cache.entry import Entry


def combine(stored: Sequence[Entry], new: Entry) -> Entry:
    """
    Give a part together with what is stored of the same body (RFC 9111 §3.4).

    Only parts that bear the same strong entity tag are of one body for certain. Where nothing
    stored goes with it, it is given as it is.
    """
    old = next((e for e in stored if (e.vary, e.variant) == (new.vary, new.variant)), None)
    etag = validation.strong_etag(new.fields)
    if (
        old is None
        or etag is None
        or old.status not in (200, 206)
        or validation.strong_etag(old.fields) != etag
        or new.total != (len(old.body) if old.total is None else old.total)
    ):
        return _if_whole(new)
    both = ranges.combined((old.start, old.body), (new.start, new.body))
    if both is None:
        return new
    fields = validation.merged(old.fields, new.fields).without(("content-length",))
    return _if_whole(evolve(new, fields=fields, start=both[0], body=both[1]))


def broken_off(entry: Entry, length: int | None) -> Entry | None:
    """
    Give what came of a body that broke off as a part, if it is of use as one.

    :param entry: made of what came.
    :param length: of the whole, as its server gave it.
    """
    usable = (
        entry.status == 200
        and length is not None
        and 0 < len(entry.body) < length
        and validation.strong_etag(entry.fields) is not None
    )
    if not usable:
        return None
    fields = entry.fields.without(("content-length", "content-range"))
    return evolve(entry, status=206, reason="Partial Content", fields=fields, total=length)


def _if_whole(entry: Entry) -> Entry:
    """The same as a whole answer, if nothing is missing."""
    if entry.total is None or entry.start != 0 or len(entry.body) != entry.total:
        return entry
    fields = entry.fields.replaced([("Content-Length", str(entry.total))])
    return evolve(entry, status=200, reason="OK", fields=fields, total=None)
