"""
The rules of an HTTP cache: what may be stored, and what may be served from the store.

RFC 9111, as far as a cache of whole 200-like answers to GET needs it. Nothing here waits or looks
at a clock: times come in as ``wall``, in seconds since 1970, because a store may outlive the
process, and because ``Date`` and ``Expires`` are times of the wall.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Annotated

from attrs import evolve, field, frozen
from msgspec import Meta

from twisted_net.errors import InvalidURL
from twisted_net.http.dates import parse_date
from twisted_net.http.fields import Fields
from twisted_net.http.urls import join, parse_target
from twisted_net.records import Record

# RFC 9110 §15.1, without 206: parts of a body are not stored.
CACHEABLE_BY_DEFAULT = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_NEVER = 2**31  # RFC 9111 §1.2.2: what a delta too large to be held counts as, in seconds
_OWN_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization"}
)
# RFC 9111 §3.2 and RFC 9110 §15.4.5: a 304 says nothing about the stored bytes.
_KEPT_BY_304 = frozenset({"content-length", "content-encoding", "content-range", "content-type"})


class CacheSettings(Record, frozen=True):
    """
    What a cache may keep.

    Private and without a lifetime of its own making by default, so that nothing is served that
    its server did not allow. The original client kept every answer for 300 s: ``default_ttl =
    300`` does so for services that say nothing. The bounds suit one process that talks to a few
    services: a thousand answers, 64 MiB in all, none of which is larger than a sixteenth of it.
    """

    enabled: Annotated[bool, Meta(description="whether answers are kept at all")] = True
    shared: Annotated[
        bool, Meta(description="serve one user's answers to others, as a proxy does")
    ] = False
    default_ttl: (
        Annotated[
            float,
            Meta(ge=0, le=_NEVER, description="lifetime of answers that state none, in seconds"),
        ]
        | None
    ) = None
    max_entries: Annotated[int, Meta(ge=1, description="most answers kept")] = 1000
    max_bytes: Annotated[int, Meta(ge=1, description="most bytes kept, in all")] = 64 * 2**20
    max_object: Annotated[int, Meta(ge=1, description="largest answer kept, in bytes")] = 4 * 2**20
    max_variants: Annotated[
        int, Meta(ge=1, le=1000, description="most answers kept for one URL")
    ] = 64
    file: (
        Annotated[
            str,
            Meta(
                min_length=1,
                description="SQLite file that keeps the answers from one start to the next, made"
                " if it is not there; absent: memory",
            ),
        ]
        | None
    ) = None


@frozen(slots=True)
class CacheRequest:
    """
    What the cache must know of a request.

    :param method: in capitals.
    :param key: the URL in canonical form: :attr:`twisted_net.http.urls.Target.url`.
    """

    method: str
    key: str
    fields: Fields


@frozen(slots=True)
class Entry:
    """
    A stored answer with what was worked out about it when it came.

    :param fields: without those of one connection only.
    :param request_time: when its request was sent; :param response_time: when it came.
    :param lifetime: seconds that its server gave it; None where it said nothing.
    :param age_then: its age when it came (RFC 9111 §4.2.3, *corrected_initial_age*).
    :param vary: the request fields that chose this answer, in lower case, sorted.
    :param variant: a digest of these fields in the request that brought it.
    :param checked_always: it must be validated each time (``no-cache``).
    :param checked_when_stale: it must never be served stale (``must-revalidate``).
    """

    status: int
    reason: str
    fields: Fields
    body: bytes = field(repr=False)
    request_time: float
    response_time: float
    lifetime: float | None
    age_then: float
    vary: tuple[str, ...]
    variant: bytes
    checked_always: bool
    checked_when_stale: bool

    @property
    def size(self) -> int:
        """Bytes that it counts for: its body, its fields, and what Python adds, roughly."""
        return len(self.body) + sum(len(n) + len(v) + 150 for n, v in self.fields.pairs) + 500

    def age(self, wall: float) -> float:
        """Seconds since its server made it or last confirmed it (RFC 9111 §4.2.3)."""
        return self.age_then + max(0.0, wall - self.response_time)

    @property
    def validators(self) -> list[tuple[str, str]]:
        """The condition fields that ask its server whether it is still right; maybe none."""
        found = []
        if (etag := self.fields.first("etag")) is not None:
            found.append(("If-None-Match", etag))
        if (modified := self.fields.first("last-modified")) is not None:
            found.append(("If-Modified-Since", modified))
        return found


@frozen(slots=True)
class Fresh:
    """The stored answer may be served; :attr:`age` is its age in seconds."""

    entry: Entry
    age: float


@frozen(slots=True)
class Revalidate:
    """The request goes out with :attr:`conditions`; a 304 then makes :attr:`entry` fresh."""

    entry: Entry
    conditions: Sequence[tuple[str, str]]


@frozen(slots=True)
class Forward:
    """
    The request goes out as it is.

    :param reason: as RFC 9211 §2.2 spells it, for ``Cache-Status``.
    """

    reason: str


@frozen(slots=True)
class Unsatisfiable:
    """The request wants a stored answer or none (``only-if-cached``): 504 is the answer."""


Decision = Fresh | Revalidate | Forward | Unsatisfiable


class Rules:
    """
    The decisions of one cache.

    :param settings: its ``default_ttl`` can be replaced for one call with :meth:`with_default`.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._shared = settings.shared
        self._default_ttl = settings.default_ttl
        self._max_object = settings.max_object

    def with_default(self, default_ttl: float | None) -> Rules:
        """Give the same rules with another lifetime for answers that state none."""
        other = object.__new__(Rules)
        other._shared = self._shared
        other._default_ttl = default_ttl
        other._max_object = self._max_object
        return other

    def lookup(self, request: CacheRequest, stored: Sequence[Entry], wall: float) -> Decision:
        """
        Say how a request is answered (RFC 9111 §4).

        :param stored: what the store holds under :attr:`CacheRequest.key`, newest last.
        """
        decision = self._lookup(request, stored, wall)
        if (
            isinstance(decision, (Forward, Revalidate))
            and "cache-control" in request.fields
            and "only-if-cached" in directives(request.fields)
        ):
            return Unsatisfiable()
        return decision

    def _lookup(self, request: CacheRequest, stored: Sequence[Entry], wall: float) -> Decision:
        fields = request.fields
        if request.method not in ("GET", "HEAD"):
            return Forward("method")
        if "range" in fields or any(name in fields for name in _OWN_CONDITIONS):
            return Forward("request")
        entry = self._matching(fields, stored)
        if entry is None:
            return Forward("vary-miss" if stored else "uri-miss")
        wishes = directives(fields) if "cache-control" in fields or "pragma" in fields else {}
        if "no-store" in wishes:
            return Forward("request")
        age = entry.age(wall)
        if not entry.checked_always and self._allows(wishes, entry, age):
            return Fresh(entry, age)
        # A 304 to HEAD would be fine, but a 200 to it could not replace the stored answer.
        conditions = entry.validators if request.method == "GET" else []
        return Revalidate(entry, conditions) if conditions else Forward("stale")

    def _allows(self, wishes: Mapping[str, str | None], entry: Entry, age: float) -> bool:
        """Whether an answer of this age is fresh enough for the request (RFC 9111 §5.2.1)."""
        lifetime = entry.lifetime
        if lifetime is None:
            lifetime = self._default_ttl or 0.0
        if not wishes:
            return lifetime > age
        if "no-cache" in wishes:
            return False
        if "max-age" in wishes and age > _seconds(wishes["max-age"]):
            return False
        if "min-fresh" in wishes:
            return lifetime >= age + _seconds(wishes["min-fresh"])
        if "max-stale" in wishes and not entry.checked_when_stale and lifetime <= age:
            limit = wishes["max-stale"]
            return limit is None or age - lifetime <= _seconds(limit)
        return lifetime > age

    def storable(self, request: CacheRequest, status: int, fields: Fields, wall: float) -> bool:
        """Say whether a response may be stored (RFC 9111 §3), and would be of use."""
        if request.method != "GET" or status < 200 or status in (206, 304):
            return False
        if "range" in request.fields or "no-store" in directives(request.fields):
            return False
        said = directives(fields)
        if "no-store" in said or "*" in _vary(fields):
            return False
        if self._shared and not _sharable(request.fields, said):
            return False
        lifetime = self._stated_lifetime(said, fields, wall)
        if lifetime is None:
            if status not in CACHEABLE_BY_DEFAULT and not said.keys() & {"public", "private"}:
                return False
            lifetime = self._default_ttl or 0.0
        # Neither ever fresh nor possible to validate: it could only take up room.
        return (
            (lifetime > 0 and "no-cache" not in said)
            or "etag" in fields
            or "last-modified" in fields
        )

    def fits(self, length: int) -> bool:
        """Say whether a body of this many bytes may be stored."""
        return length <= self._max_object

    def make_entry(
        self,
        request: CacheRequest,
        status: int,
        reason: str,
        fields: Fields,
        body: bytes,
        request_time: float,
        response_time: float,
    ) -> Entry:
        """Give a whole response as the entry to store; :meth:`storable` has been asked before."""
        said = directives(fields)
        vary = _vary(fields)
        if not self._shared:
            # One client may act for many users: what came for one is for that one alone.
            vary |= {"authorization", "cookie"}
        names = tuple(sorted(vary))
        lifetime = self._stated_lifetime(said, fields, response_time)
        return Entry(
            status=status,
            reason=reason,
            fields=fields.without(_hop_by_hop(fields)),
            body=body,
            request_time=request_time,
            response_time=response_time,
            lifetime=lifetime,
            age_then=_initial_age(fields, request_time, response_time),
            vary=names,
            variant=_variant(request.fields, names),
            checked_always="no-cache" in said,
            checked_when_stale="must-revalidate" in said
            or (self._shared and bool(said.keys() & {"proxy-revalidate", "s-maxage"})),
        )

    def freshen(
        self,
        request: CacheRequest,
        entry: Entry,
        fields: Fields,
        request_time: float,
        response_time: float,
    ) -> Entry:
        """
        Give *entry* as a 304 has confirmed it (RFC 9111 §4.3.4).

        :param fields: those of the 304; they replace the stored ones of the same names.
        """
        updates = fields.without(_hop_by_hop(fields) | _KEPT_BY_304)
        merged = entry.fields.without(("age",)).replaced(updates.pairs)
        made = self.make_entry(
            request, entry.status, entry.reason, merged, entry.body, request_time, response_time
        )
        # Which requests it answers was settled by the one that brought the body.
        return evolve(made, vary=entry.vary, variant=entry.variant)

    def _matching(self, fields: Fields, stored: Sequence[Entry]) -> Entry | None:
        """The newest entry whose ``Vary`` the request fits (RFC 9111 §4.1)."""
        digests: dict[tuple[str, ...], bytes] = {}
        for entry in reversed(stored):
            digest = digests.get(entry.vary)
            if digest is None:
                digest = digests[entry.vary] = _variant(fields, entry.vary)
            if digest == entry.variant:
                return entry
        return None

    def _stated_lifetime(
        self, said: Mapping[str, str | None], fields: Fields, response_time: float
    ) -> float | None:
        """The lifetime that the server states (RFC 9111 §4.2.1); None where it states none."""
        if self._shared and "s-maxage" in said:
            return _seconds(said["s-maxage"])
        if "max-age" in said:
            return _seconds(said["max-age"])
        expires = fields.first("expires")
        if expires is None:
            return None
        moment = parse_date(expires.strip(), response_time)
        if moment is None:
            return 0.0  # RFC 9111 §5.3: invalid, "0" above all, means already expired
        date = parse_date((fields.first("date") or "").strip(), response_time)
        return max(0.0, moment - (response_time if date is None else date))


def invalidated(request: CacheRequest, status: int, fields: Fields) -> list[str]:
    """
    Give the keys whose entries a response makes invalid (RFC 9111 §4.4).

    A request by an unsafe method that did not fail changes its target, and what ``Location`` and
    ``Content-Location`` name if they are of the same origin.
    """
    if request.method in SAFE or not 200 <= status < 400:
        return []
    keys = [request.key]
    origin = parse_target(request.key).origin
    for name in ("location", "content-location"):
        reference = fields.first(name)
        if reference is None:
            continue
        try:
            target = parse_target(join(request.key, reference))
        except InvalidURL:
            continue
        if target.origin == origin:
            keys.append(target.url)
    return keys


def replace_variant(stored: Iterable[Entry], entry: Entry, limit: int) -> tuple[Entry, ...]:
    """
    Give *stored* with *entry* as its newest, in place of the one that answers the same requests.

    :param limit: most entries; the oldest beyond it are dropped.
    """
    others = [
        other for other in stored if (other.vary, other.variant) != (entry.vary, entry.variant)
    ]
    return (*others, entry)[-limit:]


_DIRECTIVE = re.compile(
    r'[ \t,]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?[^,]*'
)


def directives(fields: Fields) -> dict[str, str | None]:
    """
    Read ``Cache-Control``: each directive, in lower case, with its argument or None.

    Of a directive that comes twice the first counts (RFC 9111 §4.2.1). What cannot be read is
    passed over. ``Pragma: no-cache`` counts where there is no ``Cache-Control`` (§5.4).
    """
    text = fields.get("cache-control")
    if text is None:
        return {"no-cache": None} if fields.get("pragma", "").lower() == "no-cache" else {}
    found: dict[str, str | None] = {}
    for match in _DIRECTIVE.finditer(text):
        name, quoted, token = match.groups()
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
        found.setdefault(name.lower(), value)
    return found


def _seconds(text: str | None) -> float:
    """A delta in seconds; 0 for what is none: invalid freshness means stale (§4.2.1)."""
    if text is None or not (text.isascii() and text.isdigit()):
        return 0.0
    return float(min(int(text), _NEVER)) if len(text) <= 10 else float(_NEVER)


def _initial_age(fields: Fields, request_time: float, response_time: float) -> float:
    """RFC 9111 §4.2.3: the age of a response at the time when it came."""
    # §5.1: of several values the first counts; an invalid one is ignored.
    stated = _seconds((fields.first("age") or "").partition(",")[0].strip())
    corrected = stated + max(0.0, response_time - request_time)
    date = parse_date((fields.first("date") or "").strip(), response_time)
    return corrected if date is None else max(corrected, response_time - date)


def _sharable(request_fields: Fields, said: Mapping[str, str | None]) -> bool:
    """Whether a response for one user may be stored for others."""
    if "private" in said:
        return False
    # RFC 9111 §3.5
    permits = {"public", "must-revalidate", "s-maxage"}
    return "authorization" not in request_fields or bool(said.keys() & permits)


def _vary(fields: Fields) -> set[str]:
    return {name.strip().lower() for name in fields.get("vary", "").split(",") if name.strip()}


def _hop_by_hop(fields: Fields) -> frozenset[str]:
    """The names that concern one connection only (RFC 9110 §7.6.1)."""
    listed = fields.get("connection", "")
    return _HOP_BY_HOP | {name.strip().lower() for name in listed.split(",") if name.strip()}


def _variant(fields: Fields, names: tuple[str, ...]) -> bytes:
    """A digest of the named fields, so that no credential lies in a store."""
    digest = blake2b(digest_size=16)
    for name in names:
        value = fields.get(name)
        # Absent and empty differ (RFC 9111 §4.1); white space around commas does not matter.
        if value is not None:
            value = ",".join(part.strip(" \t") for part in value.split(","))
        digest.update(repr((name, value)).encode())
    return digest.digest()
