"""
Our CoAP client as a process: makes requests, and prints the responses as JSON.

Its arguments are a URI without a path, then in JSON: the steps (method, path, payload), the fields
of :class:`~twisted_net.coap.CoapClientSettings`, and those of
:class:`~twisted_net.dtls.settings.DtlsClientSettings` or null. A step prints the code and the text
of its response; ``OBSERVE`` prints the texts of the first three states.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.coap import CoapClient, CoapClientSettings, Code
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.net.reactor import DatagramReactor

OBSERVED = 3


def command(
    uri: str,
    steps: Sequence[tuple[str, str, str]],
    settings: dict[str, object] | None = None,
    tls: dict[str, object] | None = None,
) -> list[str]:
    """Return the command line of a client that makes these requests."""
    words = [json.dumps(value) for value in (steps, settings or {}, tls)]
    return [sys.executable, str(Path(__file__)), uri, *words]


async def request(reactor: DatagramReactor, uri: str, steps: str, settings: str, tls: str) -> None:
    """Make the requests, one after the other, and print the responses."""
    fields = json.loads(tls)
    dtls = None if fields is None else DtlsClientSettings(**fields)
    responses: list[Any] = []  # Any: to be encoded as JSON
    async with CoapClient(reactor, CoapClientSettings(**json.loads(settings)), dtls) as client:
        for method, path, payload in json.loads(steps):
            if method == "OBSERVE":
                responses.append(await _observe(client, uri + path))
            else:
                response = await client.request(Code[method], uri + path, payload.encode())
                responses.append([response.code, response.text])
    print(json.dumps(responses))  # noqa: T201


async def _observe(client: CoapClient, uri: str) -> list[str]:
    states: list[str] = []
    async with await client.observe(uri) as observation:
        async for state in observation:
            states.append(state.text)
            if len(states) == OBSERVED:
                break
    return states


if __name__ == "__main__":
    react(
        lambda reactor, *words: Deferred.fromCoroutine(request(reactor, *words)),
        sys.argv[1:],
    )
