"""Hits in memory: the fast path to a fresh response, without a Deferred and without layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.web.http_headers import Headers

from twisted_net.http.bodies import BodyResponse, BufferedResponse
from twisted_net.http.cache.agent import CACHE_NAME
from twisted_net.http.cache.entry import CacheRequest, Entry
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
        headers = Headers()
        for name, value in self.fields.pairs:
            # addRawHeader encodes a str value as UTF-8; names are ASCII, and looked up as text.
            headers.addRawHeader(name, value.encode("latin-1"))
        return BufferedResponse(self.status, self.reason.encode("latin-1"), headers, self.body)


def fresh_hit(rules: Rules, store: Store, key: str, fields: HeaderFields, now: float) -> Hit | None:
    """
    Return the fresh stored response to a GET, or None.

    It returns None too where :class:`~twisted_net.http.cache.agent.CachingAgent` has more to do:
    for a response that is compressed or came through other caches, for background revalidation,
    and for a store that has to ask a disk, or that is neither :class:`MemoryStore` nor one with
    the method ``get_from_memory`` of :class:`~twisted_net.http.cache.sqlite_store.SQLiteStore`.

    :param key: the URL in canonical form.
    :param fields: those of the request, with none of
        :data:`~twisted_net.http.cache.entry.CACHE_RELEVANT_FIELDS`.
    :param now: by the clock of the cache.
    """
    if type(store) is MemoryStore:
        stored: Sequence[Entry] | None = store.get(key)
    else:
        get_from_memory = getattr(store, "get_from_memory", None)
        stored = None if get_from_memory is None else get_from_memory(key)
    if not stored:
        return None
    decision = rules.lookup(CacheRequest("GET", key, fields), stored, now)
    if type(decision) is not Serve or decision.background_revalidation:
        return None
    entry, age = decision.entry, decision.age
    if "content-encoding" in entry.fields or "cache-status" in entry.fields:
        return None
    served = entry.fields.replaced(
        (
            ("Age", str(int(age))),
            ("Cache-Status", f"{CACHE_NAME}; hit; ttl={int(decision.freshness_remaining)}"),
        )
    )
    return Hit(entry.status, entry.reason, served, entry.body, age)
