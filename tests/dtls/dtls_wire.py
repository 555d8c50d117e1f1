"""A DTLS server and its clients in memory, on a clock, with a wire that may lose something."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock

from tests.patience import wait_until
from tests.tcp.issuing import Authority, write_pair
from twisted_net.dtls.client import DtlsClient
from twisted_net.dtls.errors import DtlsError
from twisted_net.dtls.peer import SecurePeer
from twisted_net.dtls.server import DtlsServer
from twisted_net.dtls.session import client_context
from twisted_net.dtls.settings import DtlsClientSettings, DtlsSettings
from twisted_net.net.addresses import Source
from twisted_net.net.memory_ledger import MemoryLedger
from twisted_net.reasons import End

SERVER: Source = ("192.0.2.1", 5684)
HERE: Source = ("198.51.100.1", 40_000)

AUTHORITY = Authority()

Fate = Callable[[int, bytes, bool], list[bytes]]
"""Returns the datagrams delivered for one: from its number, itself, and if the server gets it."""


def stop(protocol: DatagramProtocol) -> None:
    """Stop a protocol, as its port does when it closes."""
    protocol.doStop()


class Files:
    """Certificates in a folder: of a server for ``a.test``, and of users."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ca = str(AUTHORITY.write(self.folder / "ca.pem"))
        self.server = self.write("server", "a.test", SERVER[0])

    def write(self, name: str, *hosts: str, user: str | None = None) -> str:
        """Write a certificate and its key into one file."""
        names = () if user is None else (user,)
        pair = AUTHORITY.issue(*hosts, common_names=names)
        return str(write_pair(self.folder / f"{name}.pem", pair))

    def write_keys(self, name: str, **keys: str) -> str:
        """Write a file of pre-shared keys, in hexadecimal, by identity."""
        path = self.folder / f"{name}.toml"
        path.write_text("".join(f'"{identity}" = "{key}"\n' for identity, key in keys.items()))
        return str(path)

    def remove(self) -> None:
        """Remove all."""
        shutil.rmtree(self.folder)


class Inner(DatagramProtocol):
    """Keeps what it gets, and sends it back where it is told to."""

    noisy = False

    def __init__(self, echo: bool) -> None:
        self.echo = echo
        self.got: list[tuple[bytes, Source]] = []

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.got.append((datagram, addr))
        if self.echo:
            assert self.transport is not None
            self.transport.write(b"echo " + datagram, addr)


class _Port:
    """One end of the wire."""

    def __init__(self, wire: Wire, source: Source) -> None:
        self._wire = wire
        self._source = source

    def write(self, datagram: bytes, addr: Source | None = None) -> None:
        self._wire.send(datagram, self._source, addr or SERVER)

    def connect(self, host: str, port: int) -> None:
        assert (host, port) == SERVER


class Client:
    """A client at an address."""

    def __init__(
        self, wire: Wire, source: Source, name: str, numeric: bool, settings: DtlsClientSettings
    ) -> None:
        self.source = source
        self.inner = Inner(echo=False)
        self.lost: list[DtlsError] = []
        self.dtls = DtlsClient(
            cast(IReactorTime, wire.clock),
            self.inner,
            client_context(settings),
            settings,
            SERVER,
            name,
            numeric,
            self.lost.append,
        )
        self.failures: list[DtlsError] = []
        self.connected = False
        self.dtls.connected().addCallbacks(self._connected, self._failed)

    def _connected(self, _: None) -> None:
        self.connected = True

    def _failed(self, failure: Any) -> None:  # Any: a Failure
        self.failures.append(failure.value)

    def say(self, payload: bytes) -> None:
        """Send a datagram."""
        self.dtls.write(payload)

    @property
    def heard(self) -> list[bytes]:
        """What came from the server."""
        return [payload for payload, _ in self.inner.got]


class Wire:
    """
    A server, its clients, and what carries their datagrams: in order, at once, whole.

    :ivar carried: each datagram that was sent, from where, and to where.
    :ivar fate: decides otherwise.
    """

    def __init__(
        self,
        files: Files,
        settings: DtlsSettings | None = None,
        session_limit: Callable[[str], int | None] | None = None,
        inner: DatagramProtocol | None = None,
        memory: MemoryLedger | None = None,
    ) -> None:
        self.files = files
        self.clock = Clock()
        self.fate: Fate = lambda number, datagram, to_server: [datagram]
        self.carried: list[tuple[bytes, Source, Source]] = []
        self._queue: deque[tuple[bytes, Source, Source]] = deque()
        self._clients: dict[Source, Client] = {}
        self.inner = inner or Inner(echo=True)
        self.ended: list[tuple[SecurePeer, End]] = []
        settings = settings or DtlsSettings(certificate=files.server)
        self.server = DtlsServer(
            cast(IReactorTime, self.clock),
            self.inner,
            DtlsServer.make_certificates(settings),
            settings,
            ended=lambda peer, end: self.ended.append((peer, end)),
            session_limit=session_limit,
            memory=memory,
            psk=DtlsServer.make_psk(settings),
        )
        self.server.makeConnection(_Port(self, SERVER))  # type: ignore[arg-type]  # a fake

    def client(
        self,
        source: Source = HERE,
        name: str = "a.test",
        numeric: bool = False,
        start: bool = True,
        **settings: Any,  # Any: fields of the record
    ) -> Client:
        """Make a client, which begins to shake hands."""
        trusted = {} if "psk" in settings else {"ca": self.files.ca}
        believed = DtlsClientSettings(**(trusted | settings))
        client = Client(self, source, name, numeric, believed)
        self._clients[source] = client
        if start:
            self.start(client)
        return client

    def start(self, client: Client) -> None:
        """Let a client begin to shake hands."""
        client.dtls.makeConnection(_Port(self, client.source))  # type: ignore[arg-type]  # a fake

    def connect(self, source: Source = HERE, **settings: Any) -> Client:  # Any: as above
        """Make a client, and let it finish its handshake."""
        client = self.client(source, **settings)
        self.run()
        return client

    def send(self, datagram: bytes, source: Source, to: Source) -> None:
        """Take a datagram, and decide what becomes of it."""
        self.carried.append((datagram, source, to))
        for copy in self.fate(len(self.carried), datagram, to == SERVER):
            self._queue.append((copy, source, to))

    def run(self) -> None:
        """Carry all datagrams, and those that answer them."""
        while self._queue:
            self._carry(self._queue.popleft())

    def run_shuffled(self, chance: random.Random) -> None:
        """Carry all datagrams, in any order."""
        while self._queue:
            at = chance.randrange(len(self._queue))
            one = self._queue[at]
            del self._queue[at]
            self._carry(one)

    def run_until(self, done: Callable[[], bool], chance: random.Random | None = None) -> None:
        """
        Let real time pass, which OpenSSL's timers need, until something is the case.

        Our own time goes on with it, but waits where the machine is busy.

        :raises AssertionError: if it is not after :data:`~tests.patience.PATIENCE`.
        """

        def look() -> bool:
            self.clock.advance(0.01)
            if chance is None:
                self.run()
            else:
                self.run_shuffled(chance)
            return done()

        wait_until(look)

    def inject(self, datagram: bytes, source: Source = HERE) -> None:
        """Deliver a forged datagram to the server."""
        self.server.datagramReceived(datagram, source)

    def to_server(self) -> list[bytes]:
        """Return what was sent to the server."""
        return [datagram for datagram, _, to in self.carried if to == SERVER]

    def from_server(self) -> list[bytes]:
        """Return what the server sent."""
        return [datagram for datagram, source, _ in self.carried if source == SERVER]

    def stop(self) -> None:
        """Stop the server, and let its last words arrive."""
        stop(self.server)
        self.run()

    def _carry(self, one: tuple[bytes, Source, Source]) -> None:
        datagram, source, to = one
        if to == SERVER:
            if self.server.transport is not None:
                self.server.datagramReceived(datagram, source)
        elif to in self._clients and self._clients[to].dtls.transport is not None:
            self._clients[to].dtls.datagramReceived(datagram, source)
