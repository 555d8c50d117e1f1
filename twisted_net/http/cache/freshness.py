"""Freshness: the age and the freshness lifetime of a response (RFC 9111 §4.2)."""

from __future__ import annotations

import re

from twisted_net.http.cache.directives import MAX_DELTA_SECONDS, Directives, seconds
from twisted_net.http.cache.entry import Entry
from twisted_net.http.dates import parse_date
from twisted_net.http.fields import HeaderFields

HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses for which a heuristic freshness lifetime is allowed (RFC 9110 §15.1)."""


def initial_age(fields: HeaderFields, delay: float, wall: float) -> float:
    """
    Return the age of a response when it was received: *corrected_initial_age* of §4.2.3.

    Of several ``Age`` values the first counts; a malformed one is ignored (§5.1), and so are
    parameters after it. The whole response delay is added, since ``Age`` may have been written at
    any moment of it.

    :param delay: seconds from the request to the response.
    :param wall: when it was received, by the wall clock.
    """
    text = fields.first("age")
    stated = 0.0 if text is None else seconds(re.split("[,;]", text, maxsplit=1)[0].strip())
    corrected = stated + max(0.0, delay)
    date = date_of(fields, wall)
    return corrected if date is None else max(corrected, wall - date)


def explicit_lifetime(
    response_directives: Directives,
    fields: HeaderFields,
    wall: float,
    *,
    shared: bool,
    expires: bool = True,
) -> float | None:
    """
    Return the explicit freshness lifetime in seconds (§4.2.1), or None where there is none.

    :param wall: when the response was received, by the wall clock.
    :param shared: whether the cache is shared, so that ``s-maxage`` counts.
    :param expires: False to ignore ``Expires`` (RFC 9213 §2.2).
    """
    if shared and "s-maxage" in response_directives:
        return seconds(response_directives["s-maxage"])
    if "max-age" in response_directives:
        return seconds(response_directives["max-age"])
    text = fields.first("expires") if expires else None
    if text is None:
        return None
    moment = parse_date(text.strip(), wall)
    if moment is None:
        return 0.0  # §5.3: an invalid date, "0" above all, means already expired
    date = date_of(fields, wall)
    # No longer than max-age can say; so what was received in the future is always stale.
    return min(max(0.0, moment - (wall if date is None else date)), float(MAX_DELTA_SECONDS))


def heuristic_lifetime(
    fields: HeaderFields, wall: float, *, fraction: float, limit: float
) -> float | None:
    """
    Return the heuristic freshness lifetime in seconds (§4.2.2), or None without ``Last-Modified``.

    A resource that has not changed for long is not likely to change soon: the lifetime is a
    *fraction* of the time between ``Last-Modified`` and ``Date``, at most *limit*.

    :param wall: when the response was received, by the wall clock.
    """
    modified = parse_date((fields.first("last-modified") or "").strip(), wall)
    if modified is None or fraction == 0:
        return None
    date = date_of(fields, wall)
    made = wall if date is None else min(date, wall)
    return min(limit, max(0.0, (made - modified) * fraction))


def date_of(fields: HeaderFields, wall: float) -> float | None:
    """Return the time of ``Date`` in seconds since 1970, or None where it is absent or invalid."""
    return parse_date((fields.first("date") or "").strip(), wall)


def satisfies(asked: Directives, entry: Entry, age: float, remaining: float) -> bool:
    """Return whether a stored response is fresh enough for the request (RFC 9111 §5.2.1)."""
    if not asked:
        return remaining > 0
    if "no-cache" in asked:
        return False
    if "max-age" in asked:
        limit = seconds(asked["max-age"])
        # RFC 8246 §2: a reload (max-age=0) does not validate a fresh immutable response.
        reload = limit == 0 and entry.immutable and remaining > 0
        if (age > limit or limit == 0) and not reload:
            return False
    if "min-fresh" in asked and remaining < seconds(asked["min-fresh"]):
        return False
    if remaining > 0:
        return True
    if "min-fresh" in asked or entry.must_revalidate:
        return False
    if "max-stale" in asked:
        max_stale = asked["max-stale"]
        return max_stale is None or -remaining <= seconds(max_stale)
    return False
