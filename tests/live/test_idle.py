"""A connection that is idle takes little memory, whatever it did before, and leaves none."""

from __future__ import annotations

import gc
import ssl
import sys
import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from benchmarks.idle import BURST, KINDS, PING, connect
from tests.live.programs import port_of, serving
from tests.patience import until
from tests.tcp.issuing import Authority, write_pair
from twisted_net.config.tls import TlsSettings
from twisted_net.tcp.listener_settings import Listener

CONNECTIONS = 100

BYTES = {"plain": 2000, "unix": 2800, "proxy": 2500, "ws": 4800, "tls": 4400, "wss": 6800}
"""
Bytes of Python's objects that an idle connection may take, without those of its socket.

There is room for tables that have just grown, and for what a reactor with log contexts keeps. What
a connection takes of OpenSSL is not Python's: see the tests of the TLS transport.
"""

LATER = 1.2 if sys.version_info >= (3, 12) else 1.0
"""Objects of CPython 3.12 and later take so much more: those of 3.13 up to a sixth, as measured."""

LISTENERS: dict[str, dict[str, Any]] = {  # Any: fields of Listener
    "plain": {"port": 0},
    "unix": {"path": "{}/socket"},
    "proxy": {"port": 0, "proxy": ("127.0.0.1",)},
    "ws": {"port": 0, "protocol": "websocket"},
    "tls": {"port": 0},
    "wss": {"port": 0, "protocol": "websocket"},
}


def held() -> int:
    """Give the bytes that the code under test has allocated, which the test has not."""
    gc.collect()
    names = ("twisted_net", "twisted", "wsproto")
    filters = [tracemalloc.Filter(True, f"*/{name}/*") for name in names]
    traces = tracemalloc.take_snapshot().filter_traces(filters).traces
    return sum(trace.size for trace in traces)


@pytest.mark.parametrize("pieces", [[], [PING] * 3, [BURST]], ids=["connected", "asked", "burst"])
@pytest.mark.parametrize("name", BYTES)
async def test_bytes(name: str, pieces: list[bytes], tmp_path: Path, reactor: Any) -> None:
    """A connection takes no more than its kind may, and leaves nothing."""
    settings = dict(LISTENERS[name])
    if "path" in settings:
        settings["path"] = settings["path"].format(tmp_path)

    context = None
    if KINDS[name].tls:
        authority = Authority()
        pair = write_pair(tmp_path / "pair.pem", authority.issue("localhost"))
        settings["tls"] = TlsSettings(certificate=str(pair))
        context = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca")))

    def talk() -> None:
        for _ in range(CONNECTIONS):
            client = connect(KINDS[name], place, context)
            opened.callback(client.sock.close)
            for piece in pieces:
                client.ask(piece)

    async with serving(reactor, Listener(**settings)) as service:
        place = settings.get("path") or port_of(service)
        tracemalloc.start()
        with ExitStack() as opened:
            # What the first ones bring along is not theirs.
            await deferToThread(talk)
            await until(reactor, lambda: len(service.sessions) == CONNECTIONS)
            before = held()
            await deferToThread(talk)
            await until(reactor, lambda: len(service.sessions) == 2 * CONNECTIONS)
            each = (held() - before) / CONNECTIONS
        await until(reactor, lambda: not len(service.sessions))
        left = held() - before
        tracemalloc.stop()
    assert 1000 < each <= BYTES[name] * LATER
    assert left < 0
