"""
Validators and conditions: whether what is stored is still what the server has.

RFC 9110 §8.8 and §13, RFC 9111 §4.3.
"""

from __future__ import annotations

import re

from twisted_net.http.dates import parse_date
from twisted_net.http.fields import HeaderFields

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization"}
)
"""Fields of one connection, which are not stored (RFC 9111 §3.1)."""

# RFC 9111 §3.2: what the stored bytes depend on is not changed without them.
_KEPT = frozenset(
    {"content-length", "content-encoding", "content-range", "content-md5", "content-digest"}
    | {"etag"}
)

_FRESHNESS = frozenset({"age", "cache-control", "date", "expires"})

# The second form is none by the grammar, and is what some servers send and mean.
_TAG = re.compile(r'[ \t,]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*"|[^\s,"]+)[ \t]*(?=,|$)')


def hop_by_hop(fields: HeaderFields) -> frozenset[str]:
    """Give the names that concern one connection only (RFC 9110 §7.6.1)."""
    listed = fields.get("connection")
    if listed is None:
        return HOP_BY_HOP
    return HOP_BY_HOP | {name.strip().lower() for name in listed.split(",") if name.strip()}


def strong_etag(fields: HeaderFields) -> str | None:
    """Give the entity tag, if there is a strong one: equal tags then mean equal bytes."""
    tag = fields.first("etag")
    return tag if tag is not None and len(tag) > 1 and tag[0] == tag[-1] == '"' else None


def conditions(fields: HeaderFields) -> list[tuple[str, str]]:
    """Give the condition fields that ask whether a stored answer is still right; maybe none."""
    found = []
    if (etag := fields.first("etag")) is not None:
        found.append(("If-None-Match", etag))
    if (modified := fields.first("last-modified")) is not None:
        found.append(("If-Modified-Since", modified))
    return found


def entity_tags(text: str) -> list[str]:
    """Give the entity tags of a list, ``*`` among them, as far as it can be read."""
    tags: list[str] = []
    at = 0
    while match := _TAG.match(text, at):
        tags.append(match[1])
        at = match.end()
    return tags


def same_tag(one: str, other: str) -> bool:
    """Say whether two entity tags match weakly (RFC 9110 §8.8.3.2)."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def unmodified(request: HeaderFields, stored: HeaderFields, response_time: float) -> bool:
    """
    Say whether the caller's own condition finds nothing new in a stored 200 (RFC 9111 §4.3.2).

    ``If-None-Match`` counts before ``If-Modified-Since`` (RFC 9110 §13.2.2). Without a
    ``Last-Modified``, ``Date`` or else the time of receipt is what the latter is compared with.
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
    Say whether a 304 speaks of the stored answer (RFC 9111 §4.3.4).

    One that names another strong validator does not.
    """
    etag = strong_etag(fields)
    mine = stored.first("etag")
    return etag is None or mine is None or same_tag(etag, mine)


def merged(stored: HeaderFields, update: HeaderFields) -> HeaderFields:
    """
    Give the stored fields as those of a 304, a 206 or an answer to HEAD update them (§3.2).

    They replace all stored ones of their names, but for those that describe the stored bytes. Of
    a 304 that bears another strong entity tag than the one that it was asked about, no more is
    believed than that it is one (§4.3.4 forbids to update by its fields; what was asked about is
    right all the same, and servers that compress send such answers): the freshness is renewed.
    """
    new = update.without(hop_by_hop(update) | _KEPT)
    if not confirms(update, stored):
        new = HeaderFields((name, value) for name, value in new.pairs if name.lower() in _FRESHNESS)
    return stored.without(("age",)).replaced(new.pairs)


def describes(head: HeaderFields, stored: HeaderFields, length: int) -> bool:
    """
    Say whether an answer to HEAD speaks of the stored answer (RFC 9111 §4.3.5).

    :param length: of the stored body.
    """
    for name in ("etag", "last-modified"):
        said = head.first(name)
        if said is not None and said != stored.first(name):
            return False
    said = head.first("content-length")
    return said is None or said == str(length)
