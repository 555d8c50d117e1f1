"""FETCH: requests a URL from an untrusted client, and describes the response for JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from twisted.internet.interfaces import IHostnameResolver

from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import TooBusy
from twisted_net.http.client import Client
from twisted_net.http.response import Response
from twisted_net.http.settings import FetchSettings, HttpSettings
from twisted_net.net.rate_limit import KeyedCounts
from twisted_net.net.reactor import AnyReactor
from twisted_net.net.untrusted_json import decode_json, has_more_values
from twisted_net.turns.turn_scheduler import next_turn

MAX_CONTAINERS = 10_000
"""
Arrays and objects of a JSON document that is decoded, brackets in its strings included.

Each takes half a microsecond of one reactor turn: 87,000 empty ones in 256 KiB took 40 ms. Usual
documents have fifty bytes or more for each.
"""

MAX_VALUES = 30_000
"""
Values of such a document, as :func:`~twisted_net.net.untrusted_json.has_more_values` counts them.

To decode and to encode 123,000 numbers, which 256 KiB can have, took 9 ms of one turn beside other
programs; this many take 3.
"""

LARGE_BODY = 16_384
"""
Bytes of a body above which it is decoded in a turn of its own, of those that all connections share.

256 KiB of JSON take 5 ms and more. The last byte of many may come in one turn.
"""

_TEXTUAL = frozenset(
    {"application/xml", "application/xhtml+xml", "application/atom+xml", "application/rss+xml"}
    | {"application/javascript", "application/x-www-form-urlencoded", "application/yaml"}
)


@check_arguments
class Fetcher:
    """
    Fetches URLs for untrusted clients.

    :param client: makes the requests. Its ``egress`` is to be *settings*, as in :meth:`guarded`:
        without it clients reach every destination that this machine reaches.
    :param owner: returns for whom a call is that begins now; "" if that is not known. One owner
        may have as many calls under way as others could still begin, so that none keeps all.
    """

    def __init__(
        self, client: Client, settings: FetchSettings, owner: Callable[[], str] = lambda: ""
    ) -> None:
        self._client = client
        self._settings = settings
        self._owner = owner
        self._running = KeyedCounts()  # by owner
        self._free = settings.max_running

    @classmethod
    def guarded(
        cls,
        reactor: AnyReactor,
        http: HttpSettings | None = None,
        fetch: FetchSettings | None = None,
        resolver: IHostnameResolver | None = None,
        owner: Callable[[], str] = lambda: "",
    ) -> Fetcher:
        """
        Return a fetcher with its own client, which reaches only what *fetch* allows.

        :param resolver: looks up names; by default the reactor's.
        :param owner: as of :class:`Fetcher`.
        """
        fetch = fetch or FetchSettings()
        return cls(Client(reactor, http, egress=fetch, resolver=resolver), fetch, owner)

    async def fetch(self, url: str) -> dict[str, object]:
        """
        GET *url* and return a description of the response, as members for JSON:

        ``status``
            the status code, of success or not;
        ``headers``
            the fields of the settings that the response has, names in lower case;
        ``kind``
            ``json``, ``text`` or ``base64``;
        ``body``
            of kind ``json``, the decoded value; of kind ``text``, a string; of kind ``base64``,
            the bytes in that coding (RFC 4648 §4);
        ``from_cache``
            whether the body came from the cache;
        ``elapsed``
            seconds.

        The kind is ``json`` for a JSON content type with valid JSON of at most 256 levels and
        :data:`MAX_CONTAINERS` arrays and objects and :data:`MAX_VALUES` values; ``text`` for a
        textual content type, or none, and for other JSON, with valid text.

        :raises FetchError: if there is no response.
        :raises TooBusy: if as many calls are under way as may be.
        """
        with self._place():
            response = await self._client.get(
                url, headers={"Accept": "*/*"}, max_body=self._settings.max_body
            )
            if len(response.body) > LARGE_BODY:
                await next_turn(self._client.pace.turns)
            kind, body = _content(response)
        shown = [name.lower() for name in self._settings.headers]
        return {
            "status": response.status,
            "headers": {name: response.headers[name] for name in shown if name in response.headers},
            "kind": kind,
            "body": body,
            "from_cache": response.from_cache,
            "elapsed": round(response.elapsed, 6),
        }

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Count a call while it runs; each may keep a body of some size."""
        owner = self._owner()
        if not self._free or (owner and self._running[owner] >= self._free):
            limit = self._running[owner] if self._free else self._settings.max_running
            raise TooBusy(limit, "fetches")
        self._free -= 1
        self._running.add(owner)
        try:
            yield
        finally:
            self._free += 1
            self._running.remove(owner)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


def _content(response: Response) -> tuple[str, Any]:  # Any: a JSON value
    """Return the kind of a body, and the body in its form for JSON."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        body = response.body.removeprefix(b"\xef\xbb\xbf")
        # Not JSON in spite of its content type, too deep or too large: it is shown as text.
        with suppress(ValueError):
            containers = body.count(b"[") + body.count(b"{")
            if containers <= MAX_CONTAINERS and not has_more_values(body, MAX_VALUES):
                return "json", decode_json(body)
    elif kind and not kind.startswith("text/") and kind not in _TEXTUAL:
        return "base64", base64.b64encode(response.body).decode()
    try:
        # Not with replacements, which take a hundred times longer in some charsets.
        text = response.body.decode(response.encoding)
    except UnicodeDecodeError:
        text = "\ufffd"
    if "\ufffd" in text:
        return "base64", base64.b64encode(response.body).decode()
    return "text", text
