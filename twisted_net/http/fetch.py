"""The FETCH command's part of HTTP: a URL from a stranger in, something for a line of JSON out."""

from __future__ import annotations

import base64
from typing import Any

from twisted_net.http.client import Client
from twisted_net.http.errors import BodyMismatch
from twisted_net.http.response import Response
from twisted_net.http.settings import FetchSettings, HttpSettings

_TEXTUAL = frozenset(
    {"application/xml", "application/xhtml+xml", "application/atom+xml", "application/rss+xml"}
    | {"application/javascript", "application/x-www-form-urlencoded", "application/yaml"}
)


class Fetcher:
    """
    Fetches URLs for others.

    :param client: makes the requests; give it *settings* as its ``egress``, as :meth:`guarded`
        does, or strangers reach whatever this machine can.
    """

    def __init__(self, client: Client, settings: FetchSettings) -> None:
        self._client = client
        self._settings = settings

    @classmethod
    def guarded(
        cls,
        reactor: Any,  # Any: as Client takes it
        http: HttpSettings | None = None,
        fetch: FetchSettings | None = None,
    ) -> Fetcher:
        """Give a fetcher with a client of its own that reaches only what *fetch* allows."""
        fetch = fetch or FetchSettings()
        return cls(Client(reactor, http, egress=fetch), fetch)

    async def fetch(self, url: str) -> dict[str, object]:
        """
        GET *url* and describe what came, as members for JSON:

        ``status``
            the number, whatever it is;
        ``headers``
            those of the settings that the response has, names in lower case;
        ``kind``
            ``json``, ``text`` or ``base64``;
        ``body``
            of kind ``json``, the decoded value; of kind ``text``, a string; of kind ``base64``,
            the bytes in that coding (RFC 4648 §4);
        ``from_cache``
            whether the body came from the cache;
        ``elapsed``
            seconds.

        A body is ``json`` if the response says so and it is; ``text`` if the response says so
        or says nothing, and it is text.

        :raises FetchError: where there is no response.
        """
        response = await self._client.get(
            url, headers={"Accept": "*/*"}, max_body=self._settings.max_body
        )
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

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


def _content(response: Response) -> tuple[str, Any]:  # Any: a JSON value
    """Give the kind of a body and its form for JSON."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return "json", response.json()
        except BodyMismatch:
            pass  # said to be JSON and is not: shown as text, if it is that
    elif kind and not kind.startswith("text/") and kind not in _TEXTUAL:
        return "base64", base64.b64encode(response.body).decode()
    text = response.text()
    if "\ufffd" in text:
        return "base64", base64.b64encode(response.body).decode()
    return "text", text
