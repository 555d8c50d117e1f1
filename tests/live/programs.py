"""Programs of others, which the tests speak to, and a service for them to speak to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Timer
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.missing import missing
from tests.patience import PATIENCE
from twisted_net.service.config import Config, TcpSettings, UdpSettings
from twisted_net.service.net import NetService
from twisted_net.tcp.listener_settings import Listener


def program(name: str, package: str) -> str:
    """Find a program, or leave the test out; where tests may not be left out, fail."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is not None:
        return found
    missing(f"{name} (Debian: {package})")


def run(*words: str, data: bytes = b"") -> Deferred[subprocess.CompletedProcess[bytes]]:
    """Run a program with *data* as its input, and give what came of it."""

    def call() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(words, input=data, capture_output=True, timeout=PATIENCE, check=False)

    return deferToThread(call)


def run_until(*words: str, data: bytes, marker: bytes) -> Deferred[bytes]:
    """
    Run a program with *data* as its input, until its output holds *marker* or it ends by itself.

    :return: fires with all that it said, on standard error too.
    """

    def call() -> bytes:
        said = b""
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(data)
            process.stdin.flush()
            deadline = Timer(PATIENCE, process.kill)
            deadline.start()
            while marker not in said:
                piece = os.read(process.stdout.fileno(), 65_536)
                if not piece:
                    break
                said += piece
            deadline.cancel()
            process.kill()
        return said

    return deferToThread(call)


@asynccontextmanager
async def serving(
    reactor: Any,  # Any: reactors have no one type
    *listeners: str | Listener,
    **settings: Any,  # Any: fields of Config
) -> AsyncIterator[NetService]:
    """Run a service with these listeners alone."""
    defaults: dict[str, Any] = {"drain_timeout": 2.0, "udp": UdpSettings(enabled=False)}
    alone = Config(tcp=TcpSettings(enabled=False), listeners=listeners, **defaults | settings)
    service = NetService(reactor, alone)
    service.startService()
    try:
        yield service
    finally:
        await service.stopService()


def port_of(service: NetService, index: int = 0) -> int:
    """Give the port of one of its listeners."""
    port = service.listeners[index].port
    assert port is not None
    return port
