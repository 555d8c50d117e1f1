"""How old a response is, and for how long it is fresh: RFC 9111 §4.2."""

from __future__ import annotations

import re

from twisted_net.http.cache.directives import Directives, seconds
from twisted_net.http.dates import parse_date
from twisted_net.http.fields import HeaderFields

HEURISTICALLY_CACHEABLE = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses whose freshness may be guessed (RFC 9110 §15.1)."""


def initial_age(fields: HeaderFields, request_time: float, response_time: float) -> float:
    """
    Give the age of a response at the time when it came: *corrected_initial_age* of §4.2.3.

    Of several ages the first counts, and one that is none is ignored (§5.1); parameters after it
    are read over, as in any item. The whole time that the answer took is added, since nobody
    knows at which end of it the age was written.
    """
    text = fields.first("age")
    stated = 0.0 if text is None else seconds(re.split("[,;]", text, maxsplit=1)[0].strip())
    corrected = stated + max(0.0, response_time - request_time)
    date = date_of(fields, response_time)
    return corrected if date is None else max(corrected, response_time - date)


def stated_lifetime(
    said: Directives,
    fields: HeaderFields,
    response_time: float,
    *,
    shared: bool,
    expires: bool = True,
) -> float | None:
    """
    Give the lifetime that the server states, in seconds (§4.2.1); None where it states none.

    :param expires: False where ``Expires`` does not count (RFC 9213 §2.2).
    """
    if shared and "s-maxage" in said:
        return seconds(said["s-maxage"])
    if "max-age" in said:
        return seconds(said["max-age"])
    text = fields.first("expires") if expires else None
    if text is None:
        return None
    moment = parse_date(text.strip(), response_time)
    if moment is None:
        return 0.0  # §5.3: invalid, "0" above all, means already expired
    date = date_of(fields, response_time)
    return max(0.0, moment - (response_time if date is None else date))


def guessed_lifetime(
    fields: HeaderFields, response_time: float, *, fraction: float, most: float
) -> float | None:
    """
    Guess a lifetime for a response that states none (§4.2.2); None without ``Last-Modified``.

    What has not changed for long is not likely to change soon: a *fraction* of the time between
    ``Last-Modified`` and ``Date``, at *most* so many seconds.
    """
    modified = parse_date((fields.first("last-modified") or "").strip(), response_time)
    if modified is None or fraction == 0:
        return None
    date = date_of(fields, response_time)
    made = response_time if date is None else min(date, response_time)
    return min(most, max(0.0, (made - modified) * fraction))


def date_of(fields: HeaderFields, wall: float) -> float | None:
    """Give the moment that ``Date`` names, or None where it names none."""
    return parse_date((fields.first("date") or "").strip(), wall)
