"""The short way to a fresh answer in memory, on which nothing waits and no layer is built."""

from __future__ import annotations

from typing import NamedTuple

from twisted.web.http_headers import Headers

from twisted_net.http.bodies import BodyResponse, buffered_response
from twisted_net.http.cache.agent import NAME
from twisted_net.http.cache.entry import CacheRequest
from twisted_net.http.cache.rules import Fresh, Rules
from twisted_net.http.cache.stores import MemoryStore, Store
from twisted_net.http.fields import HeaderFields


class Hit(NamedTuple):
    """An answer out of the store; :attr:`age` is in seconds."""

    status: int
    reason: str
    fields: HeaderFields
    body: bytes
    age: float

    def response(self) -> BodyResponse:
        """Give it as Twisted has responses."""
        headers = Headers()
        for name, value in self.fields.pairs:
            # Names are looked up as the text that they are; a value would be made UTF-8.
            headers.addRawHeader(name, value.encode("latin-1"))
        return buffered_response(self.status, self.reason.encode("latin-1"), headers, self.body)


def fresh_hit(
    rules: Rules, store: Store, key: str, fields: HeaderFields, wall: float
) -> Hit | None:
    """
    Give the fresh answer to a GET, if one lies at hand.

    It passes over what :class:`~twisted_net.http.cache.agent.CachingAgent` has more to do for: an
    answer that is compressed or has passed other caches, one to be asked about by the side, and
    any store but one in memory.

    :param key: the URL in canonical form.
    :param fields: those of the request, none of which says anything to caches.
    """
    if type(store) is not MemoryStore:
        return None
    stored = store.get(key)
    if not stored:
        return None
    decision = rules.lookup(CacheRequest("GET", key, fields), stored, wall)
    if type(decision) is not Fresh or decision.refresh:
        return None
    entry, age = decision.entry, decision.age
    if "content-encoding" in entry.fields or "cache-status" in entry.fields:
        return None
    served = entry.fields.replaced(
        (
            ("Age", str(int(age))),
            ("Cache-Status", f"{NAME}; hit; ttl={int(decision.left)}"),
        )
    )
    return Hit(entry.status, entry.reason, served, entry.body, age)
