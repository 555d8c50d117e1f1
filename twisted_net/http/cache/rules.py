"""
The decisions of an HTTP cache: what is stored, what is served, and what is asked of the server.

RFC 9111, with RFC 5861 (stale answers), RFC 8246 (immutable) and RFC 9213 (targeted fields). What
single fields mean is in :mod:`~twisted_net.http.cache.directives`, ``freshness``, ``validation``,
``variants``, ``ranges`` and ``invalidation``. Nothing here waits or looks at a clock: times come
in as ``wall``, in seconds since 1970, because a store may outlive the process, and because
``Date`` and ``Expires`` are times of the wall.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from twisted_net.http.cache import ranges, validation
from twisted_net.http.cache.directives import (
    Directives,
    directives,
    is_targeted,
    named_fields,
    response_directives,
    seconds,
)
from twisted_net.http.cache.entry import NOT_FOR_CACHES, TELLING, CacheRequest, Entry
from twisted_net.http.cache.freshness import (
    HEURISTICALLY_CACHEABLE,
    guessed_lifetime,
    initial_age,
    stated_lifetime,
)
from twisted_net.http.cache.settings import CacheSettings, url_pattern
from twisted_net.http.cache.storability import (
    always_checked,
    answers_get,
    forbids_storing,
    sharable,
    stale_seconds,
)
from twisted_net.http.cache.vary import USER_FIELDS, variant, vary_names
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields

# RFC 5861 §4: the answers that count as an error.
ERRORS = frozenset({500, 502, 503, 504})


@frozen(slots=True)
class Fresh:
    """
    The stored answer may be served.

    :param age: in seconds.
    :param left: seconds for which it is still fresh, by its own lifetime; less than zero where it
        is stale and may be served so.
    :param refresh: it is to be asked about now, by the side (``stale-while-revalidate``).
    """

    entry: Entry
    age: float
    left: float
    refresh: bool = False


@frozen(slots=True)
class Revalidate:
    """
    The request goes out with :attr:`conditions`; a 304 then makes :attr:`entry` fresh.

    :param conditions: fields that replace the request's own of their names.
    :param reason: as RFC 9211 §2.2 spells it.
    """

    entry: Entry
    conditions: Sequence[tuple[str, str]]
    reason: str = "stale"


@frozen(slots=True)
class Complete:
    """
    The missing end of a part is asked for, with :attr:`conditions`.

    A 206 completes :attr:`entry`; a 200 is the whole body anew.
    """

    entry: Entry
    conditions: Sequence[tuple[str, str]]
    reason: str = "partial"


@frozen(slots=True)
class Forward:
    """
    The request goes out as it is.

    :param reason: as RFC 9211 §2.2 spells it, for ``Cache-Status``.
    :param entry: what is stored for it all the same: of use if the server fails.
    """

    reason: str
    entry: Entry | None = None


@frozen(slots=True)
class Unsatisfiable:
    """The request wants a stored answer or none (``only-if-cached``): 504 is the answer."""


Decision = Fresh | Revalidate | Complete | Forward | Unsatisfiable


class Rules:
    """
    The decisions of one cache.

    :param settings: its ``default_ttl`` can be replaced for one call with :meth:`with_default`.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._shared = settings.shared
        self._targets = settings.targets if settings.shared else ()
        self._default_ttl = settings.default_ttl
        self._patterns = tuple(url_pattern(text) for text in settings.ttl_by_url)

    def with_default(self, default_ttl: float | None) -> Rules:
        """Give the same rules with another lifetime for answers that state none."""
        other = object.__new__(Rules)
        other._settings = self._settings
        other._shared = self._shared
        other._targets = self._targets
        other._default_ttl = default_ttl
        other._patterns = ()
        return other

    def default_for(self, key: str) -> float | None:
        """Give the lifetime of answers from this URL that state none, if one is set."""
        for pattern, ttl in self._patterns:
            if pattern.match(key):
                return ttl
        return self._default_ttl

    def user_names(self) -> tuple[str, ...]:
        """Give the request fields that keep users apart, sorted: none in a shared cache."""
        return () if self._shared else tuple(sorted(USER_FIELDS))

    # What is served.

    def lookup(self, request: CacheRequest, stored: Sequence[Entry], wall: float) -> Decision:
        """
        Say how a request is answered (RFC 9111 §4).

        :param stored: what the store holds under :attr:`CacheRequest.key`, newest last.
        """
        if request.method != "GET" and request.method != "HEAD":
            return Forward("method")
        fields = request.fields
        entry = self._matching(fields, stored)
        if fields.has_none(TELLING):
            if entry is not None and entry.total is None and not entry.checked_always:
                age = entry.age(wall)
                left = self._lifetime(request.key, entry) - age
                if left > 0:
                    return Fresh(entry, age, left)
            wishes: Directives = {}
        else:
            wishes = directives(fields)
        decision = self._decide(request, wishes, entry, stored, wall)
        if "only-if-cached" in wishes and not isinstance(decision, Fresh):
            return Unsatisfiable()
        return decision

    def _decide(
        self,
        request: CacheRequest,
        wishes: Directives,
        entry: Entry | None,
        stored: Sequence[Entry],
        wall: float,
    ) -> Decision:
        fields = request.fields
        if "no-store" in wishes or not fields.has_none(NOT_FOR_CACHES):
            return Forward("request")
        if entry is None:
            return Forward("vary-miss" if stored else "uri-miss")
        part = ranges.wants_part(fields, entry.fields, wall)
        if part and not _has_part(fields, entry):
            return Forward("partial" if entry.total is not None else "request")
        if entry.total is not None and not part:
            return self._whole_of(request, wishes, entry, wall)
        age = entry.age(wall)
        left = self._lifetime(request.key, entry) - age
        if not entry.checked_always:
            if _accepts(wishes, entry, age, left):
                return Fresh(entry, age, left)
            if not wishes and _in_window(entry, left, entry.stale_while_revalidate):
                return Fresh(entry, age, left, refresh=True)
        reason = "request" if left > 0 and not entry.checked_always else "stale"
        # A 304 to HEAD would be fine, but a 200 to it could not replace the stored answer.
        conditions = entry.validators if request.method == "GET" else []
        if not conditions:
            return Forward(reason, entry)
        own = fields.get("if-none-match")
        if own is not None:
            if conditions[0][0] != "If-None-Match":
                # The caller's tags count before any date: a 304 would speak of what it has.
                return Forward(reason, entry)
            # The caller's own tags go along: what it has may be newer than what is stored.
            tags = [conditions[0][1]]
            tags += [tag for tag in validation.entity_tags(own) if tag not in ("*", tags[0])]
            conditions[0] = ("If-None-Match", ", ".join(tags))
        return Revalidate(entry, conditions, reason)

    def _whole_of(
        self, request: CacheRequest, wishes: Directives, entry: Entry, wall: float
    ) -> Decision:
        """How a request for a whole body is answered of which a part is stored."""
        etag = validation.strong_etag(entry.fields)
        if (
            etag is None
            or wishes
            or entry.start != 0
            or request.method != "GET"
            or not request.fields.has_none(TELLING)
            or not self.fits(entry.total or 0)
        ):
            return Forward("partial")
        return Complete(entry, [("Range", f"bytes={len(entry.body)}-"), ("If-Range", etag)])

    def stale_on_error(self, request: CacheRequest, entry: Entry | None, wall: float) -> bool:
        """Say whether a stale answer may be served because the server fails (RFC 5861 §4)."""
        if entry is None or entry.checked_always:
            return False
        if "range" in request.fields and not _has_part(request.fields, entry):
            return False
        if "range" not in request.fields and entry.total is not None:
            return False
        wishes = directives(request.fields)
        if "no-cache" in wishes:
            return False
        window = max(entry.stale_if_error, seconds(wishes.get("stale-if-error")))
        left = self._lifetime(request.key, entry) - entry.age(wall)
        return _in_window(entry, left, window)

    # What is stored.

    def storable(
        self, request: CacheRequest, status: int, fields: HeaderFields, wall: float
    ) -> bool:
        """Say whether a response may be stored (RFC 9111 §3), and would be of use."""
        if status < 200 or status == 304 or "no-store" in directives(request.fields):
            return False
        said = response_directives(fields, self._targets)
        if forbids_storing(said, status) or "*" in vary_names(fields):
            return False
        if self._shared and not sharable(request.fields, said):
            return False
        stated = self._stated(said, fields, wall)
        if request.method == "POST":
            if not answers_get(request.key, status, fields) or stated is None:
                return False
        elif request.method != "GET":
            return False
        if status == 206:
            if not _one_part(fields):
                return False
        elif "range" in request.fields and status == 416:
            return False
        lifetime = stated
        if stated is None:
            private = not self._shared and "private" in said
            guess = self._guess(status, said, fields, wall)
            if guess is None and not private:
                return False
            default = None if guess is None else self.default_for(request.key)
            lifetime = (guess or 0.0) if default is None else default
        # Neither ever fresh nor possible to validate: it could only take up room.
        return (
            ((lifetime or 0.0) > 0 and not always_checked(said))
            or "etag" in fields
            or "last-modified" in fields
            or bool(lifetime == 0 and stale_seconds(said))
        )

    def withdraws(self, request: CacheRequest, status: int, fields: HeaderFields) -> bool:
        """
        Say whether a response that is not stored tells that what is stored is outdated.

        A full answer that must not be stored came in place of the stored one (RFC 9111 §4.3.3);
        to serve the older one after it would be to go back in time.
        """
        return (
            request.method == "GET"
            and status < 500
            and status not in (206, 304, 416)
            and forbids_storing(response_directives(fields, self._targets), status)
        )

    def unusable(self, entry: Entry) -> bool:
        """Say whether the fields of an entry, as a 304 has left them, forbid to keep it."""
        said = response_directives(entry.fields, self._targets)
        return forbids_storing(said, entry.status) or "*" in vary_names(entry.fields)

    def fits(self, length: int) -> bool:
        """Say whether a body of this many bytes may be stored."""
        return length <= self._settings.max_object

    def make_entry(
        self,
        request: CacheRequest,
        status: int,
        reason: str,
        fields: HeaderFields,
        body: bytes,
        request_time: float,
        response_time: float,
    ) -> Entry:
        """Give a whole response as the entry to store; :meth:`storable` has been asked before."""
        said = response_directives(fields, self._targets)
        vary = vary_names(fields)
        names = tuple(sorted(vary if self._shared else vary | USER_FIELDS))
        omitted = set(validation.hop_by_hop(fields))
        omitted |= named_fields(said.get("no-cache"))
        if self._shared:
            omitted |= named_fields(said.get("private"))
        start, total = 0, None
        if status == 206 and (found := ranges.parse_content_range(fields.get("content-range", ""))):
            start, _, total = found
            omitted |= {"content-range", "content-length"}
        kept = fields.without(omitted)
        if "date" not in kept:
            # RFC 9110 §6.6.1: what is stored has a date.
            kept = kept.replaced([("Date", format_date(response_time))])
        if total is None and status != 204 and "content-length" not in kept:
            # Twisted's agents take it away (RFC 9110 §8.6: it may be given where it is known).
            kept = kept.replaced([("Content-Length", str(len(body)))])
        return Entry(
            status=status,
            reason=reason,
            fields=kept,
            body=body,
            request_time=request_time,
            response_time=response_time,
            lifetime=self._stated(said, fields, response_time),
            age_then=initial_age(fields, request_time, response_time),
            vary=names,
            variant=variant(request.fields, names),
            checked_always=always_checked(said),
            checked_when_stale="must-revalidate" in said
            or (self._shared and bool(said.keys() & {"proxy-revalidate", "s-maxage"})),
            guess=self._guess(status, said, fields, response_time),
            immutable="immutable" in said,
            stale_while_revalidate=seconds(said.get("stale-while-revalidate")),
            stale_if_error=seconds(said.get("stale-if-error")),
            start=start,
            total=total,
        )

    def freshen(
        self,
        request: CacheRequest,
        entry: Entry,
        fields: HeaderFields,
        request_time: float,
        response_time: float,
        *,
        body: bytes | None = None,
    ) -> Entry:
        """
        Give *entry* as another answer has confirmed it (RFC 9111 §4.3.4, §4.3.5, §3.4).

        :param fields: those of the 304, 206 or answer to HEAD; they replace stored ones.
        :param body: the new body, where there is more of it now.
        """
        if "date" not in fields:
            fields = fields.replaced([("Date", format_date(response_time))])
        made = self.make_entry(
            request,
            200 if entry.total is not None else entry.status,
            entry.reason,
            validation.merged(entry.fields, fields),
            entry.body if body is None else body,
            request_time,
            response_time,
        )
        # Which requests it answers was settled by the one that brought the body.
        return evolve(
            made,
            status=entry.status,
            vary=entry.vary,
            variant=entry.variant,
            start=entry.start,
            total=entry.total,
        )

    def freshen_by_head(
        self,
        request: CacheRequest,
        stored: Sequence[Entry],
        status: int,
        fields: HeaderFields,
        request_time: float,
        response_time: float,
    ) -> tuple[Entry | None, bool]:
        """
        Judge what is stored by an answer to HEAD (RFC 9111 §4.3.5).

        :returns: the entry that it confirms, as it now is; and whether what is stored is outdated.
        """
        entry = self._matching(request.fields, stored)
        if entry is None or status != 200 or entry.status not in (200, 206):
            return None, False
        length = len(entry.body) if entry.total is None else entry.total
        if not validation.describes(fields, entry.fields, length):
            return None, True
        said = response_directives(fields, self._targets)
        if forbids_storing(said, status) or (self._shared and not sharable(request.fields, said)):
            return None, True
        return self.freshen(request, entry, fields, request_time, response_time), False

    def _matching(self, fields: HeaderFields, stored: Sequence[Entry]) -> Entry | None:
        """The newest entry whose ``Vary`` the request fits (RFC 9111 §4.1)."""
        digests: dict[tuple[str, ...], bytes] = {}
        for entry in reversed(stored):
            digest = digests.get(entry.vary)
            if digest is None:
                digest = digests[entry.vary] = variant(fields, entry.vary)
            if digest == entry.variant:
                return entry
        return None

    def _lifetime(self, key: str, entry: Entry) -> float:
        if entry.lifetime is not None:
            return entry.lifetime
        if entry.guess is None:
            return 0.0
        default = self.default_for(key)
        return entry.guess if default is None else default

    def _stated(self, said: Directives, fields: HeaderFields, response_time: float) -> float | None:
        expires = not self._targets or not is_targeted(fields, self._targets)
        return stated_lifetime(said, fields, response_time, shared=self._shared, expires=expires)

    def _guess(
        self, status: int, said: Directives, fields: HeaderFields, response_time: float
    ) -> float | None:
        """A lifetime by §4.2.2: 0 without ``Last-Modified``, None where none may be made up."""
        if status not in HEURISTICALLY_CACHEABLE and "public" not in said:
            return None
        settings = self._settings
        guess = guessed_lifetime(
            fields,
            response_time,
            fraction=settings.heuristic_fraction,
            most=settings.heuristic_max,
        )
        return guess or 0.0


def _accepts(wishes: Directives, entry: Entry, age: float, left: float) -> bool:
    """Whether an answer of this age is fresh enough for the request (RFC 9111 §5.2.1)."""
    if not wishes:
        return left > 0
    if "no-cache" in wishes:
        return False
    if "max-age" in wishes:
        limit = seconds(wishes["max-age"])
        # RFC 8246 §2: who reloads (max-age=0) is spared the question.
        reload = limit == 0 and entry.immutable and left > 0
        if (age > limit or limit == 0) and not reload:
            return False
    if "min-fresh" in wishes and left < seconds(wishes["min-fresh"]):
        return False
    if left > 0:
        return True
    if "max-stale" in wishes and "min-fresh" not in wishes and not entry.checked_when_stale:
        most = wishes["max-stale"]
        return most is None or -left <= seconds(most)
    return False


def _in_window(entry: Entry, left: float, window: float) -> bool:
    """Whether a stale answer may be served, so many seconds after its lifetime."""
    return window > 0 and -left < window and not entry.checked_when_stale


def _has_part(request: HeaderFields, entry: Entry) -> bool:
    """Whether what a ``Range`` asks for can be answered from an entry."""
    return entry.status in (200, 206) and ranges.covers(
        request["range"], entry.start, len(entry.body), entry.total
    )


def _one_part(fields: HeaderFields) -> bool:
    """Whether a 206 has one part whose place is known."""
    return ranges.parse_content_range(fields.get("content-range", "")) is not None
