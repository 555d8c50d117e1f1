"""Cache entries: stored responses, and the requests that they are selected for."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from twisted_net.http.cache import validation
from twisted_net.http.fields import HeaderFields

NOT_FOR_CACHES = ("if-match", "if-unmodified-since")
OWN_CONDITIONS = ("if-none-match", "if-modified-since")
TELLING = ("cache-control", "pragma", "range", *OWN_CONDITIONS, *NOT_FOR_CACHES)


@frozen(slots=True)
class CacheRequest:
    """
    What the cache must know of a request.

    :param method: in capitals.
    :param key: the URL in canonical form: :attr:`twisted_net.http.urls.HttpTarget.url`.
    """

    method: str
    key: str
    fields: HeaderFields


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
    :param guess: the lifetime guessed where the server gave none; None where none may be made
        up, by ``default_ttl`` neither.
    :param immutable: it does not change while it is fresh (RFC 8246).
    :param stale_while_revalidate: seconds, and
    :param stale_if_error: seconds that it may be served after its lifetime (RFC 5861).
    :param start: where in the whole body :attr:`body` starts.
    :param total: length of the whole body where :attr:`body` is only a part; else None.
    """

    status: int
    reason: str
    fields: HeaderFields
    body: bytes = field(repr=False)
    request_time: float
    response_time: float
    lifetime: float | None
    age_then: float
    vary: tuple[str, ...]
    variant: bytes
    checked_always: bool
    checked_when_stale: bool
    guess: float | None = 0.0
    immutable: bool = False
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    start: int = 0
    total: int | None = None

    @property
    def size(self) -> int:
        """Bytes that it counts for: its body, its fields, and what Python adds, roughly."""
        return len(self.body) + sum(len(n) + len(v) + 150 for n, v in self.fields.pairs) + 500

    def age(self, wall: float) -> float:
        """Seconds since its server made it or last confirmed it (RFC 9111 §4.2.3)."""
        # A clock that goes back makes nothing younger than it came.
        passed = wall - self.response_time
        return self.age_then + passed if passed > 0 else self.age_then

    @property
    def validators(self) -> list[tuple[str, str]]:
        """The condition fields that ask its server whether it is still right; maybe none."""
        return validation.conditions(self.fields)


def replace_variant(stored: Iterable[Entry], entry: Entry, limit: int) -> tuple[Entry, ...]:
    """
    Give *stored* with *entry* as its newest, in place of the one that answers the same requests.

    :param limit: most entries; the oldest beyond it are dropped.
    """
    others = [
        other for other in stored if (other.vary, other.variant) != (entry.vary, entry.variant)
    ]
    return (*others, entry)[-limit:]
