"""
Validation: entity tags, conditional requests, and updates of stored responses.

RFC 9110 §8.8 and §13, RFC 9111 §4.3.
"""

from __future__ import annotations

import re

from twisted_net.http.dates import parse_date
from twisted_net.http.fields import HeaderFields, connection_options

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization"}
)
"""HeaderFields of a single connection, which are not stored (RFC 9111 §3.1)."""

# RFC 9111 §3.2: fields that describe the stored bytes change only together with them.
_CONTENT_FIELDS = frozenset(
    {"content-length", "content-encoding", "content-range", "content-md5", "content-digest"}
    | {"etag"}
)

_FRESHNESS = frozenset({"age", "cache-control", "date", "expires"})

# The unquoted form is invalid by the grammar, but some servers send it.
_TAG = re.compile(r'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*"|[^\s,"]+)[ \t]*(?=,|$)')


def hop_by_hop(fields: HeaderFields) -> frozenset[str]:
    """
    Return the names, in lower case, of the fields of a single connection (RFC 9110 §7.6.1).

    Those that ``Connection`` names are among them, see
    :func:`~twisted_net.http.fields.connection_options`.
    """
    listed = fields.joined("connection")
    return HOP_BY_HOP if listed is None else HOP_BY_HOP | connection_options(listed)


def strong_etag(fields: HeaderFields) -> str | None:
    """
    Return the entity tag if it is a strong one, else None.

    Responses with the same strong tag have the same bytes.
    """
    tag = fields.first("etag")
    return tag if tag is not None and len(tag) > 1 and tag[0] == tag[-1] == '"' else None


def conditions(fields: HeaderFields) -> list[tuple[str, str]]:
    """Return the condition fields that validate a stored response; none without a validator."""
    found = []
    if (etag := fields.first("etag")) is not None:
        found.append(("If-None-Match", etag))
    if (modified := fields.first("last-modified")) is not None:
        found.append(("If-Modified-Since", modified))
    return found


def entity_tags(text: str) -> list[str]:
    """Parse a list of entity tags, or ``*``, up to the first error."""
    tags: list[str] = []
    at = 0
    while match := _TAG.match(text, at):
        tags.append(match[1])
        at = match.end()
    return tags


def same_tag(one: str, other: str) -> bool:
    """Return whether two entity tags match by weak comparison (RFC 9110 §8.8.3.2)."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def unmodified(request: HeaderFields, stored: HeaderFields, response_time: float) -> bool:
    """
    Return whether a conditional request gets 304 from a stored response (RFC 9111 §4.3.2).

    ``If-None-Match`` takes precedence over ``If-Modified-Since`` (RFC 9110 §13.2.2). The latter
    is compared with ``Last-Modified``, or else ``Date``, or else the time of receipt.
    """
    wanted = request.get("if-none-match")
    if wanted is not None:
        etag = stored.first("etag")
        tags = entity_tags(wanted)
        return "*" in tags or (etag is not None and any(same_tag(tag, etag) for tag in tags))
    since = parse_date((request.get("if-modified-since") or "").strip(), response_time)
    if since is None:
        return False
    for name in ("last-modified", "date"):
        moment = parse_date((stored.first(name) or "").strip(), response_time)
        if moment is not None:
            return moment <= since
    return response_time <= since


def confirms(fields: HeaderFields, stored: HeaderFields) -> bool:
    """
    Return whether a 304 validates the stored response (RFC 9111 §4.3.4).

    One with another strong validator does not.
    """
    etag = strong_etag(fields)
    stored_etag = stored.first("etag")
    return etag is None or stored_etag is None or same_tag(etag, stored_etag)


def updated_fields(stored: HeaderFields, update: HeaderFields) -> HeaderFields:
    """
    Return the stored fields, updated from a 304, a 206 or a response to HEAD (§3.2).

    New fields replace all stored ones of the same name, except those that describe the stored
    bytes. From a 304 with another strong entity tag than the stored one, only the freshness is
    taken: §4.3.4 forbids to update the other fields, but the 304 still answers our condition, and
    servers that compress send such responses.
    """
    new = update.without(hop_by_hop(update) | _CONTENT_FIELDS)
    if not confirms(update, stored):
        new = HeaderFields((name, value) for name, value in new.pairs if name.lower() in _FRESHNESS)
    return stored.without(("age",)).replaced(new.pairs)


def head_confirms(head: HeaderFields, stored: HeaderFields, length: int) -> bool:
    """
    Return whether a response to HEAD validates the stored response (RFC 9111 §4.3.5).

    :param length: complete length of the stored body, in bytes.
    """
    for name in ("etag", "last-modified"):
        value = head.first(name)
        if value is not None and value != stored.first(name):
            return False
    value = head.first("content-length")
    return value is None or value == str(length)
