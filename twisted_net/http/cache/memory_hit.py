"""Hits in memory: the fast path to a fresh response, without a Deferred and past all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted_net.http.bodies import BodyResponse, BufferedResponse
from twisted_net.http.cache.entry import CacheRequest, Entry
from twisted_net.http.cache.response_cache import CACHE_NAME, COLLAPSED
from twisted_net.http.cache.responses import lookup_after_wait
from twisted_net.http.cache.rules import Rules, Serve
from twisted_net.http.cache.stores import MemoryStore, Store
from twisted_net.http.fields import HeaderFields


class Hit(NamedTuple):
    """A fresh response out of the store; :attr:`age` is in seconds."""

    status: int
    reason: str
    fields: HeaderFields
    body: bytes
    age: float

    def response(self) -> BodyResponse:
        """Return it as an ``IResponse``."""
        return BufferedResponse(self.status, self.reason.encode("latin-1"), self.fields, self.body)


def stored_in_memory(store: Store, key: str) -> Sequence[Entry] | None:
    """
    Return the entries under a key, or None if that takes more than a look into memory.

    It does for a store that has to ask a disk, and for one that is neither :class:`MemoryStore` nor
    has the method ``get_from_memory`` of
    :class:`~twisted_net.http.cache.sqlite_store.SQLiteStore`.
    """
    if type(store) is MemoryStore:
        return store.get(key)
    get_from_memory = getattr(store, "get_from_memory", None)
    found: Sequence[Entry] | None = None if get_from_memory is None else get_from_memory(key)
    return found


def fresh_hit(
    rules: Rules,
    store: Store,
    key: str,
    fields: HeaderFields,
    now: Callable[[], float],
    *,
    asked_at: float | None = None,
) -> Hit | None:
    """
    Return the fresh stored response to a GET, or None.

    It returns None too where :class:`~twisted_net.http.cache.response_cache.ResponseCache` has more
    to do: for a response that is compressed or came through other caches, for background
    revalidation, and where :func:`stored_in_memory` returns None.

    :param key: the URL in canonical form.
    :param fields: those of the request, with none of
        :data:`~twisted_net.http.cache.entry.CACHE_RELEVANT_FIELDS`.
    :param now: the clock of the cache.
    :param asked_at: when the request was made, if another caller's has brought the response.
    """
    stored = stored_in_memory(store, key)
    if not stored:
        return None
    request = CacheRequest("GET", key, fields)
    if asked_at is None:
        decision, how = rules.lookup(request, stored, now()), "hit"
    else:
        decision, how = lookup_after_wait(rules, request, stored, now(), asked_at), COLLAPSED
    if type(decision) is not Serve or decision.background_revalidation:
        return None
    entry, age = decision.entry, decision.age
    if "content-encoding" in entry.fields or "cache-status" in entry.fields:
        return None
    served = entry.fields.replaced(
        (
            ("Age", str(int(age))),
            ("Cache-Status", f"{CACHE_NAME}; {how}; ttl={int(decision.freshness_remaining)}"),
        )
    )
    return Hit(entry.status, entry.reason, served, entry.body, age)
