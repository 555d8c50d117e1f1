"""
The decisions of an HTTP cache (RFC 9111): what is stored, served, validated or forwarded.

With RFC 5861 (stale responses), RFC 8246 (immutable) and RFC 9213 (targeted fields). The meaning
of single fields is in the modules beside this one: ``directives``, ``freshness``, ``validation``,
``vary``, ``ranges``, ``storability``. Nothing here waits or reads a clock: times are arguments.

Ages are by the clock of the cache, ``now``: a steady one, in seconds since 1970 nevertheless,
because a store may outlive the process. ``Date`` and ``Expires`` are compared with the wall clock
when the response is received, ``wall``.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from twisted_net.config.type_checks import check_arguments
from twisted_net.http.cache import ranges, validation
from twisted_net.http.cache.directives import (
    Directives,
    has_targeted_field,
    listed_fields,
    parse_response_directives,
    request_directives,
    seconds,
)
from twisted_net.http.cache.entry import (
    CACHE_RELEVANT_FIELDS,
    ORIGIN_CONDITIONS,
    CacheRequest,
    Entry,
    ReceiptTimes,
)
from twisted_net.http.cache.freshness import (
    HEURISTICALLY_CACHEABLE,
    explicit_lifetime,
    heuristic_lifetime,
    initial_age,
    satisfies,
)
from twisted_net.http.cache.settings import CacheSettings, url_pattern
from twisted_net.http.cache.storability import (
    forbids_storing,
    is_response_to_get,
    longest_stale_window,
    requires_validation,
    storable_if_shared,
)
from twisted_net.http.cache.vary import KEY_FIELDS, USER_FIELDS, variant, vary_names
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields

STALE_IF_ERROR_STATUSES = frozenset({500, 502, 503, 504})
"""Responses that count as an error of the server (RFC 5861 §4)."""

# Request directives beside which a response may be served while it is validated (RFC 5861 §3); the
# others state how fresh it has to be.
_ALLOWS_STALE = frozenset({"only-if-cached", "stale-if-error"})


# Without one of these a response has neither a lifetime nor a validator, nor a directive.
_PERMITTING_FIELDS = ("cache-control", "etag", "expires", "last-modified")


@frozen(slots=True)
class Serve:
    """
    Serve the stored response, without asking the server.

    :param age: in seconds.
    :param freshness_remaining: seconds for which it stays fresh; below zero where it is stale and
        may be served so.
    :param background_revalidation: whether to validate it now, without delaying the response
        (``stale-while-revalidate``).
    """

    entry: Entry
    age: float
    freshness_remaining: float
    background_revalidation: bool = False


@frozen(slots=True)
class Revalidate:
    """
    Forward the request with :attr:`conditions`; a 304 then makes :attr:`entry` fresh.

    :param conditions: fields that replace those of the same name in the request.
    :param reason: why the request is forwarded, as RFC 9211 §2.2 spells it.
    """

    entry: Entry
    conditions: Sequence[tuple[str, str]]
    reason: str = "stale"


@frozen(slots=True)
class FetchRemainder:
    """
    Request the missing end of a partial response, with :attr:`conditions`.

    A 206 completes :attr:`entry`; a 200 is a new complete body.
    """

    entry: Entry
    conditions: Sequence[tuple[str, str]]
    reason: str = "partial"


@frozen(slots=True)
class Forward:
    """
    Forward the request as it is.

    :param reason: as RFC 9211 §2.2 spells it, for ``Cache-Status``.
    :param entry: a stored response to serve if the server fails; None without one.
    """

    reason: str
    entry: Entry | None = None


@frozen(slots=True)
class Unsatisfiable:
    """Answer 504: the request allows only a stored response (``only-if-cached``)."""


OTHER_METHOD = Forward("method")
"""What is decided for a request that is neither a GET nor a HEAD."""

Decision = Serve | Revalidate | FetchRemainder | Forward | Unsatisfiable


@check_arguments
class Rules:
    """
    The decisions of one cache.

    :param settings: its ``default_ttl`` and ``stale_if_error`` can be replaced for one call, by
        :meth:`with_default_ttl` and :meth:`with_stale_if_error`.
    """

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._shared = settings.shared
        self._targets = settings.targets if settings.shared else ()
        self._default_ttl = settings.default_ttl
        self._stale_if_error = settings.stale_if_error
        self._key_fields = tuple(sorted(KEY_FIELDS if self._shared else KEY_FIELDS | USER_FIELDS))
        self._patterns = tuple(url_pattern(text) for text in settings.ttl_by_url)
        self._permitting = (*_PERMITTING_FIELDS, *(name.lower() for name in self._targets))

    def with_default_ttl(self, default_ttl: float | None) -> Rules:
        """Return the same rules with this lifetime for all responses that state none."""
        other = self._copy()
        other._default_ttl = default_ttl
        other._patterns = ()
        return other

    def with_stale_if_error(self, stale_if_error: float) -> Rules:
        """Return the same rules with this window for stale responses in place of errors."""
        other = self._copy()
        other._stale_if_error = stale_if_error
        return other

    def _copy(self) -> Rules:
        other = object.__new__(Rules)
        other.__dict__.update(self.__dict__)
        return other

    def default_ttl_for(self, key: str) -> float | None:
        """Return the lifetime set for responses from this URL that state none, or None."""
        for pattern, ttl in self._patterns:
            if pattern.match(key):
                return ttl
        return self._default_ttl

    def storing_terms(self, key: str) -> tuple[float | None, bool]:
        """Return what may differ between calls, of that which decides what is storable."""
        return self.default_ttl_for(key), self._stale_if_error > 0

    def key_field_names(self) -> tuple[str, ...]:
        """
        Return the request fields that a response is always selected by, sorted.

        They are those of the target, and in a private cache those that separate users.
        """
        return self._key_fields

    # Lookup.

    def lookup(self, request: CacheRequest, stored: Sequence[Entry], now: float) -> Decision:
        """
        Decide how a request is answered (RFC 9111 §4).

        :param stored: the entries that the store has for :attr:`CacheRequest.key`, newest last.
        :param now: by the clock of the cache.
        """
        if request.method != "GET" and request.method != "HEAD":
            return OTHER_METHOD
        fields = request.fields
        entry = self._select(fields, stored)
        if fields.has_none(CACHE_RELEVANT_FIELDS):
            if entry is not None and entry.complete_length is None and not entry.no_cache:
                age = entry.age(now)
                remaining = self.lifetime(request.key, entry) - age
                if remaining > 0:
                    return Serve(entry, age, remaining)
            asked: Directives = {}
        else:
            asked = request_directives(fields)
        decision = self._decide(request, asked, entry, stored, now)
        if "only-if-cached" in asked and not isinstance(decision, Serve):
            return Unsatisfiable()
        return decision

    def _decide(
        self,
        request: CacheRequest,
        asked: Directives,
        entry: Entry | None,
        stored: Sequence[Entry],
        now: float,
    ) -> Decision:
        fields = request.fields
        if "no-store" in asked or not fields.has_none(ORIGIN_CONDITIONS):
            return Forward("request")
        if entry is None:
            return Forward("vary-miss" if stored else "uri-miss")
        for_range = ranges.range_applies(fields, entry.fields, entry.response_time)
        if for_range and not _covers_range(fields, entry):
            return Forward("partial" if entry.complete_length is not None else "request")
        if entry.complete_length is not None and not for_range:
            return self._complete(request, entry)
        age = entry.age(now)
        remaining = self.lifetime(request.key, entry) - age
        if not entry.no_cache:
            if satisfies(asked, entry, age, remaining):
                return Serve(entry, age, remaining)
            if asked.keys() <= _ALLOWS_STALE and _may_serve_stale(
                entry, remaining, entry.stale_while_revalidate
            ):
                return Serve(entry, age, remaining, background_revalidation=True)
        reason = "request" if remaining > 0 and not entry.no_cache else "stale"
        # A 304 to HEAD would be fine, but a 200 to it could not replace the stored response.
        conditions = entry.validators if request.method == "GET" else []
        if not conditions:
            return Forward(reason, entry)
        requested_tags = fields.get("if-none-match")
        if requested_tags is not None:
            if conditions[0][0] != "If-None-Match":
                # The caller's entity tags take precedence over any date (RFC 9110 §13.2.2): a 304
                # would be about the caller's copy, not about the stored one.
                return Forward(reason, entry)
            # The caller's tags are sent too: its copy may be newer than the stored one.
            own_tag = conditions[0][1]
            others = validation.entity_tags(requested_tags)
            tags = [own_tag, *(tag for tag in others if tag not in ("*", own_tag))]
            conditions[0] = ("If-None-Match", ", ".join(tags))
        return Revalidate(entry, conditions, reason)

    def _complete(self, request: CacheRequest, entry: Entry) -> Decision:
        """Decide how a request for the complete body is answered if a part of it is stored."""
        etag = validation.strong_etag(entry.fields)
        if (
            etag is None
            or entry.start != 0
            or request.method != "GET"
            or not request.is_plain
            or not self.fits(entry.complete_length or 0)
        ):
            return Forward("partial")
        return FetchRemainder(entry, [("Range", f"bytes={len(entry.body)}-"), ("If-Range", etag)])

    def stale_on_error(self, request: CacheRequest, entry: Entry | None, now: float) -> bool:
        """
        Return whether a stale response may be served as the server failed (RFC 5861 §4).

        The longest window of the response, the request and the settings counts.
        """
        if entry is None or entry.no_cache:
            return False
        if "range" in request.fields and not _covers_range(request.fields, entry):
            return False
        if "range" not in request.fields and entry.complete_length is not None:
            return False
        asked = request_directives(request.fields)
        if "no-cache" in asked:
            return False
        window = max(
            entry.stale_if_error, seconds(asked.get("stale-if-error")), self._stale_if_error
        )
        remaining = self.lifetime(request.key, entry) - entry.age(now)
        return _may_serve_stale(entry, remaining, window)

    # Storing.

    def is_unstorable(self, key: str, status: int, fields: HeaderFields) -> bool:
        """
        Return whether :meth:`storable` is surely false for a response to GET.

        That is found in a tenth of the time: most responses of services forbid it, or state nothing
        for which they would be stored.
        """
        if fields.has_none(self._permitting):
            return self._stale_if_error <= 0 and self.default_ttl_for(key) is None
        return forbids_storing(parse_response_directives(fields, self._targets), status)

    def storable(
        self, request: CacheRequest, status: int, fields: HeaderFields, wall: float
    ) -> bool:
        """Return whether a response may be stored (RFC 9111 §3) and could be of use later."""
        if status < 200 or status == 304 or "no-store" in request_directives(request.fields):
            return False
        response_directives = parse_response_directives(fields, self._targets)
        if forbids_storing(response_directives, status) or "*" in vary_names(fields):
            return False
        if self._shared and not storable_if_shared(request.fields, response_directives):
            return False
        explicit = self._explicit_lifetime(response_directives, fields, wall)
        if request.method == "POST":
            if explicit is None or not is_response_to_get(request.key, status, fields):
                return False
        elif request.method != "GET":
            return False
        if status == 206:
            if not _has_single_range(fields):
                return False
        elif "range" in request.fields and status == 416:
            return False
        lifetime = explicit
        if explicit is None:
            private = not self._shared and "private" in response_directives
            heuristic = self._heuristic_lifetime(status, response_directives, fields, wall)
            if heuristic is None and not private:
                return False
            default = None if heuristic is None else self.default_ttl_for(request.key)
            lifetime = (heuristic or 0.0) if default is None else default
        # A response that is never fresh and cannot be validated would only take up space.
        return (
            ((lifetime or 0.0) > 0 and not requires_validation(response_directives))
            or "etag" in fields
            or "last-modified" in fields
            or bool(lifetime == 0 and longest_stale_window(response_directives))
            or (status < 500 and self._of_use_on_error(response_directives))
        )

    def _of_use_on_error(self, response_directives: Directives) -> bool:
        """Return whether by the settings a response is served where its server fails later."""
        return (
            self._stale_if_error > 0
            and not requires_validation(response_directives)
            and not self._must_revalidate(response_directives)
        )

    def supersedes_stored(self, request: CacheRequest, status: int, fields: HeaderFields) -> bool:
        """
        Return whether a response that is not stored shows that the stored one is outdated.

        It does where it is a full response in place of the stored one (RFC 9111 §4.3.3) and must
        not be stored: serving the older one after it would go back in time.
        """
        return (
            request.method == "GET"
            and status < 500
            and status not in (206, 304, 416)
            and forbids_storing(parse_response_directives(fields, self._targets), status)
        )

    def forbids_keeping(self, entry: Entry) -> bool:
        """Return whether the fields of an entry, as updated from a 304, forbid to keep it."""
        response_directives = parse_response_directives(entry.fields, self._targets)
        return forbids_storing(response_directives, entry.status) or "*" in vary_names(entry.fields)

    def fits(self, length: int) -> bool:
        """Return whether a body of *length* bytes may be stored."""
        return length <= self._settings.max_object

    def selecting_names(self, fields: HeaderFields) -> tuple[str, ...]:
        """Return the request fields that a response with these fields is selected by, sorted."""
        if "vary" not in fields:
            return self._key_fields
        return tuple(sorted(vary_names(fields).union(self._key_fields)))

    def make_entry(
        self,
        request: CacheRequest,
        status: int,
        reason: str,
        fields: HeaderFields,
        body: bytes,
        times: ReceiptTimes,
    ) -> Entry:
        """Return a complete response as an entry; call :meth:`storable` before."""
        response_directives = parse_response_directives(fields, self._targets)
        names = self.selecting_names(fields)
        start, complete_length = 0, None
        content_range = ranges.parse_content_range(fields.get("content-range", ""))
        if status == 206 and content_range is not None:
            start, _, complete_length = content_range
        return Entry(
            status=status,
            reason=reason,
            fields=self._stored_fields(
                status,
                fields,
                response_directives,
                times.wall,
                None if complete_length is not None else len(body),
            ),
            body=body,
            request_time=times.request_time,
            response_time=times.response_time,
            explicit_lifetime=self._explicit_lifetime(response_directives, fields, times.wall),
            initial_age=initial_age(fields, times.response_time - times.request_time, times.wall),
            vary=names,
            variant=variant(request.fields, names),
            no_cache=requires_validation(response_directives),
            must_revalidate=self._must_revalidate(response_directives),
            heuristic_lifetime=self._heuristic_lifetime(
                status, response_directives, fields, times.wall
            ),
            immutable="immutable" in response_directives,
            stale_while_revalidate=seconds(response_directives.get("stale-while-revalidate")),
            stale_if_error=seconds(response_directives.get("stale-if-error")),
            start=start,
            complete_length=complete_length,
        )

    def _must_revalidate(self, response_directives: Directives) -> bool:
        if "must-revalidate" in response_directives:
            return True
        return self._shared and bool(response_directives.keys() & {"proxy-revalidate", "s-maxage"})

    def _stored_fields(
        self,
        status: int,
        fields: HeaderFields,
        response_directives: Directives,
        wall: float,
        length: int | None,
    ) -> HeaderFields:
        """
        Return the fields to store of a response (RFC 9111 §3.1).

        :param length: of the body where it is complete; None for a partial response.
        """
        omitted = validation.hop_by_hop(fields) | listed_fields(response_directives.get("no-cache"))
        if self._shared:
            omitted |= listed_fields(response_directives.get("private"))
        if length is None:
            omitted |= {"content-range", "content-length"}
        kept = fields.without(omitted)
        if "date" not in kept:
            # RFC 9110 §6.6.1: a stored response has a date.
            kept = kept.replaced([("Date", format_date(wall))])
        if length is not None and status != 204 and "content-length" not in kept:
            # Twisted's agents remove it (RFC 9110 §8.6: it may be sent where it is known).
            kept = kept.replaced([("Content-Length", str(length))])
        return kept

    def freshen(
        self,
        request: CacheRequest,
        entry: Entry,
        fields: HeaderFields,
        times: ReceiptTimes,
        *,
        body: bytes | None = None,
    ) -> Entry:
        """
        Return *entry* as another response freshens it (RFC 9111 §4.3.4, §4.3.5, §3.4).

        :param fields: those of the 304, 206 or response to HEAD; they replace the stored ones.
        :param body: the new body, where more of it has been received.
        """
        if "date" not in fields:
            fields = fields.replaced([("Date", format_date(times.wall))])
        freshened = self.make_entry(
            request,
            200 if entry.complete_length is not None else entry.status,
            entry.reason,
            validation.updated_fields(entry.fields, fields),
            entry.body if body is None else body,
            times,
        )
        # The request that brought the body decides which requests it may be selected for. Of fields
        # that Vary has only now, the values are known of this request alone.
        names = tuple(sorted({*entry.vary, *freshened.vary}))
        return evolve(
            freshened,
            status=entry.status,
            vary=names,
            variant=entry.variant if names == entry.vary else variant(request.fields, names),
            start=entry.start,
            complete_length=entry.complete_length,
        )

    def freshen_by_head(
        self,
        request: CacheRequest,
        stored: Sequence[Entry],
        status: int,
        fields: HeaderFields,
        times: ReceiptTimes,
    ) -> tuple[Entry | None, bool]:
        """
        Freshen or invalidate a stored response by a response to HEAD (RFC 9111 §4.3.5).

        :return: the entry that it freshens, updated, or None; and whether the stored responses
            are outdated.
        """
        entry = self._select(request.fields, stored)
        if entry is None or status != 200 or entry.status not in (200, 206):
            return None, False
        length = len(entry.body) if entry.complete_length is None else entry.complete_length
        if not validation.head_confirms(fields, entry.fields, length):
            return None, True
        response_directives = parse_response_directives(fields, self._targets)
        if forbids_storing(response_directives, status) or (
            self._shared and not storable_if_shared(request.fields, response_directives)
        ):
            return None, True
        return self.freshen(request, entry, fields, times), False

    def _select(self, fields: HeaderFields, stored: Sequence[Entry]) -> Entry | None:
        """Return the newest entry whose ``Vary`` matches the request (RFC 9111 §4.1), or None."""
        digests: dict[tuple[str, ...], bytes] = {}
        for entry in reversed(stored):
            digest = digests.get(entry.vary)
            if digest is None:
                digest = digests[entry.vary] = variant(fields, entry.vary)
            if digest == entry.variant:
                return entry
        return None

    def lifetime(self, key: str, entry: Entry) -> float:
        """Return the freshness lifetime of a stored response, in seconds (RFC 9111 §4.2.1)."""
        if entry.explicit_lifetime is not None:
            return entry.explicit_lifetime
        if entry.heuristic_lifetime is None:
            return 0.0
        default = self.default_ttl_for(key)
        return entry.heuristic_lifetime if default is None else default

    def _explicit_lifetime(
        self, response_directives: Directives, fields: HeaderFields, wall: float
    ) -> float | None:
        expires = not self._targets or not has_targeted_field(fields, self._targets)
        return explicit_lifetime(
            response_directives, fields, wall, shared=self._shared, expires=expires
        )

    def _heuristic_lifetime(
        self,
        status: int,
        response_directives: Directives,
        fields: HeaderFields,
        wall: float,
    ) -> float | None:
        """Return the lifetime by §4.2.2: 0 without ``Last-Modified``, None where not allowed."""
        if status not in HEURISTICALLY_CACHEABLE and "public" not in response_directives:
            return None
        settings = self._settings
        lifetime = heuristic_lifetime(
            fields,
            wall,
            fraction=settings.heuristic_fraction,
            limit=settings.heuristic_max,
        )
        return lifetime or 0.0


def _may_serve_stale(entry: Entry, remaining: float, window: float) -> bool:
    """Return whether a stale response is no longer than *window* seconds past its lifetime."""
    return window > 0 and -remaining < window and not entry.must_revalidate


def _covers_range(request: HeaderFields, entry: Entry) -> bool:
    """Return whether the ``Range`` of a request can be answered from an entry."""
    return (
        entry.status in (200, 206)
        and ranges.accepts_coding(request, entry.fields.get("content-encoding", ""))
        and ranges.covers(request["range"], entry.start, len(entry.body), entry.complete_length)
    )


def _has_single_range(fields: HeaderFields) -> bool:
    """Return whether a 206 has a single part with a valid ``Content-Range``."""
    return ranges.parse_content_range(fields.get("content-range", "")) is not None
