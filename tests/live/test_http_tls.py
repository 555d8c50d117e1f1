"""The HTTP client against servers with TLS: by settings, over TLS that ends in several ways."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.internet.task import deferLater
from twisted.web.client import BrowserLikePolicyForHTTPS
from typing_extensions import override

from tests.garbage import cyclic_garbage
from tests.live.test_http import QUICK, global_reactor
from tests.tcp.issuing import Authority, write_pair
from twisted_net.errors import FetchError
from twisted_net.http import Client, ClientTlsSettings, ConnectionBroken, HttpSettings, TLSFailed
from twisted_net.http.retry.settings import RetryPolicy

BODY = b"x" * 50_000
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + BODY
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n" + BODY


class Answers(Protocol):
    """Answers each request with the same bytes, and then ends the connection or does not."""

    answer: bytes
    then: str

    @override
    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport  # Any: of TLS
        transport.write(self.answer)
        if self.then == "close_notify":
            transport.loseConnection()
        elif self.then == "FIN":
            # Below TLS, so that it sends no close_notify; after what waits to be encrypted.
            global_reactor().callLater(0.01, transport.transport.loseConnection)
        elif self.then == "RST":
            global_reactor().callLater(0.01, transport.transport.abortConnection)


class Pki:
    """An authority, and files of what it has issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority()
        self.ca = str(self._authority.write(folder / "ca.pem"))

    def pair(self, *hosts: str, **options: Any) -> str:
        """Issue a certificate; return its file, which has the key, too."""
        file = self._folder / f"{len(list(self._folder.iterdir()))}.pem"
        return str(write_pair(file, self._authority.issue(*hosts, **options)))

    def settings(self, **tls: Any) -> HttpSettings:
        """Return settings that trust it, without retries."""
        made = ClientTlsSettings(**{"ca": self.ca, **tls})
        return HttpSettings(timeout=5.0, retry=RetryPolicy(retries=0), tls=made)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """Make an authority."""
    return Pki(tmp_path)


@asynccontextmanager
async def serving(
    pair: str, answer: bytes = WHOLE, then: str = "", **options: Any
) -> AsyncIterator[str]:
    """Serve with a certificate; yield the URL, by the name of this machine."""
    certificate = PrivateCertificate.loadPEM(Path(pair).read_bytes())
    made = CertificateOptions(
        privateKey=certificate.privateKey.original, certificate=certificate.original, **options
    )
    protocol = type("_Answers", (Answers,), {"answer": answer, "then": then})
    factory = Factory.forProtocol(protocol)
    port = global_reactor().listenSSL(0, factory, made, interface="127.0.0.1")
    try:
        yield f"https://localhost:{port.getHost().port}/"
    finally:
        await port.stopListening()


async def test_own_authority(pki: Pki) -> None:
    """``tls.ca`` is trusted, for names and for addresses, one connection for both requests."""
    async with (
        serving(pki.pair("localhost", "127.0.0.1")) as url,
        Client(global_reactor(), pki.settings()) as client,
    ):
        for _ in range(2):
            assert (await client.get(url)).body == BODY
        assert (await client.get(url.replace("localhost", "127.0.0.1"))).body == BODY


@pytest.mark.parametrize(
    ("hosts", "options", "tls", "said"),
    [
        (["localhost"], {"days": -1}, {}, "certificate verify failed: certificate has expired"),
        (["localhost"], {}, {"ca": ""}, "certificate verify failed: unable to get local issuer"),
        (["other.test"], {}, {}, "its certificate is for another host"),
        (["127.0.0.1"], {}, {}, "its certificate is for another host"),
        ([], {"common_names": ("localhost",)}, {}, "its certificate is for another host"),
    ],
    ids=["expired", "other authority", "other name", "address", "no name"],
)
async def test_refused(
    pki: Pki, hosts: list[str], options: dict[str, Any], tls: dict[str, Any], said: str
) -> None:
    """A certificate that is not good fails the call, with what is wrong with it."""
    async with (
        serving(pki.pair(*hosts, **options)) as url,
        Client(global_reactor(), pki.settings(**tls)) as client,
    ):
        with pytest.raises(TLSFailed, match=said):
            await client.get(url)


async def test_not_verified(pki: Pki) -> None:
    """With ``tls.verify`` off any certificate does."""
    async with (
        serving(pki.pair("other.test", days=-1)) as url,
        Client(global_reactor(), pki.settings(ca="", verify=False)) as client,
    ):
        assert (await client.get(url)).body == BODY


async def test_client_certificate(pki: Pki) -> None:
    """``tls.certificate`` is what a server gets that requires one; without, it says so."""
    server = pki.pair("localhost")
    root = trustRootFromCertificates([Certificate.loadPEM(Path(pki.ca).read_bytes())])
    me = pki.pair(common_names=("ada",))
    async with serving(server, trustRoot=root) as url:
        async with Client(global_reactor(), pki.settings(certificate=me)) as client:
            assert (await client.get(url)).body == BODY
        async with Client(global_reactor(), pki.settings()) as client:
            with pytest.raises(TLSFailed, match="certificate required"):
                await client.get(url)


async def test_policy_of_twisted(pki: Pki) -> None:
    """A policy of Twisted's is still taken, and its refusals have OpenSSL's reason, too."""
    async with (
        serving(pki.pair("localhost")) as url,
        Client(global_reactor(), QUICK, tls_policy=BrowserLikePolicyForHTTPS()) as client,
    ):
        with pytest.raises(TLSFailed, match="verify failed: unable to get local issuer"):
            await client.get(url)


@pytest.mark.parametrize("then", ["close_notify", "FIN", "RST"])
async def test_end(pki: Pki, then: str) -> None:
    """A body that ends with the connection is whole after a close_notify, and only then."""
    async with (
        serving(pki.pair("localhost"), UNTIL_CLOSE, then) as url,
        Client(global_reactor(), pki.settings()) as client,
    ):
        if then == "close_notify":
            assert (await client.get(url)).body == BODY
        else:
            with pytest.raises(ConnectionBroken):
                await client.get(url)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_closed_after_each_response(pki: Pki, version: str) -> None:
    """A server that ends each connection without having said so gets none of the next requests."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    options = {"raiseMinimumTo": TLSVersion.TLSv1_3} if version == "TLSv1_3" else {}
    if version == "TLSv1_2":
        options = {"lowerMaximumSecurityTo": TLSVersion.TLSv1_2}
    async with (
        serving(pki.pair("localhost"), answer, "close_notify", **options) as url,
        Client(global_reactor(), pki.settings()) as client,
    ):
        for _ in range(5):
            assert (await client.post(url, data=b"x")).body == b"abc"


async def test_upload(pki: Pki) -> None:
    """A body in pieces is sent whole, although it begins before the handshake is complete."""
    received = bytearray()

    class Counting(Answers):
        answer, then = WHOLE, ""

        @override
        def dataReceived(self, data: bytes) -> None:
            received.extend(data)
            if data.endswith(b"0\r\n\r\n"):
                super().dataReceived(data)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(200):
            yield bytes([number]) * 10_000

    certificate = PrivateCertificate.loadPEM(Path(pki.pair("localhost")).read_bytes())
    factory = Factory.forProtocol(Counting)
    port = global_reactor().listenSSL(0, factory, certificate.options(), interface="127.0.0.1")
    try:
        async with Client(global_reactor(), pki.settings()) as client:
            url = f"https://localhost:{port.getHost().port}/"
            assert (await client.post(url, data=pieces())).body == BODY
    finally:
        await port.stopListening()
    for number in range(200):
        assert bytes([number]) * 10_000 in received


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_other_server(pki: Pki, version: str, reactor: Any) -> None:
    """Python's own TLS understands the client, in both versions, and gets its close_notify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.pair("localhost"))
    context.maximum_version = ssl.TLSVersion[version]
    ended: Deferred[bytes] = Deferred()

    def serve(listener: Any) -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as secure:
            for _ in range(2):
                assert secure.recv(65_536).endswith(b"\r\n\r\n")
                secure.sendall(WHOLE)
            # Empty after a close_notify; without one, an error.
            last = secure.recv(65_536)
        reactor.callFromThread(ended.callback, last)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        async with Client(reactor, pki.settings()) as client:
            url = f"https://localhost:{listener.getsockname()[1]}/"
            for _ in range(2):
                assert (await client.get(url)).body == BODY
        assert await ended == b""
        thread.join()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_sessions(pki: Pki, version: str, reactor: Any) -> None:
    """A new connection resumes the session of an earlier one of the same client, of no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.pair("localhost"))
    context.maximum_version = ssl.TLSVersion[version]
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    resumed: list[bool | None] = []

    def serve(listener: Any) -> None:
        for _ in range(6):
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65_536)
                resumed.append(secure.session_reused)
                secure.sendall(closing)
                with suppress(OSError):
                    secure.recv(1)

    roots = trustRootFromCertificates([Certificate.loadPEM(Path(pki.ca).read_bytes())])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}/"
        for settings, policy, count in (
            (pki.settings(), None, 3),
            (pki.settings(), None, 1),
            (QUICK, BrowserLikePolicyForHTTPS(roots), 2),
        ):
            async with Client(reactor, settings, tls_policy=policy) as client:
                for _ in range(count):
                    assert (await client.get(url)).body == b"ok"
        thread.join()
    assert resumed == [False, True, True, False, False, False]


ENDS = ["", "close_notify", "FIN", "RST"]


@pytest.mark.parametrize("then", ENDS)
@pytest.mark.parametrize("answer", [WHOLE, UNTIL_CLOSE, b"hello\r\n\r\n"], ids="wue")
@pytest.mark.parametrize("trusted", [True, False])
async def test_garbage(pki: Pki, then: str, answer: bytes, *, trusted: bool) -> None:
    """However a connection with TLS ends, nothing of it is left in cycles."""
    settings = pki.settings() if trusted else HttpSettings(retry=RetryPolicy(retries=0))
    async with (
        serving(pki.pair("localhost"), answer, then) as url,
        Client(global_reactor(), settings) as client,
    ):
        with cyclic_garbage() as left:
            with suppress(FetchError):
                await client.get(url, timeout=0.3)
            for _ in range(5):
                await deferLater(global_reactor(), 0.005)
        assert left == set()
