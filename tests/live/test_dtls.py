"""DTLS over real sockets: our client, our server, and the service."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from tests.live.processes import Running
from tests.live.programs import program, run, serving
from tests.patience import until
from tests.tcp.issuing import Authority, write_pair
from twisted_net.auth.users import AuthSettings
from twisted_net.coap.client import CoapClient
from twisted_net.coap.codec import Code
from twisted_net.coap.errors import (
    CoapClientClosed,
    CoapTimeout,
    SecureSessionFailed,
    TransferFailed,
)
from twisted_net.coap.settings import CoapClientSettings
from twisted_net.dtls.errors import DtlsEnded
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import ConfigError
from twisted_net.reasons import End
from twisted_net.service.config import CoapDtlsSettings, CoapSettings, UdpDtlsSettings, UdpSettings
from twisted_net.service.net import NetService

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "coaps_lock.py"
HOWTO = ROOT / "docs" / "howto" / "dtls.rst"
AUTHORITY = Authority()
QUICK = CoapClientSettings(ack_timeout=0.1, max_retransmit=1)
"""Gives up on a silent server soon; of these seconds none passes while the machine is busy."""
USERS = """
[ann]
commands = ["*"]
[bob]
commands = ["*", "-@admin"]
"""


@pytest.fixture
def reactor(patient_reactor: Any) -> Any:  # Any: reactors have no one type
    """The reactor of these tests: none of their short timeouts is due for a busy machine."""
    return patient_reactor


def issue(file: Path, *hosts: str, user: str | None = None) -> str:
    """Write a certificate and its key into one file."""
    names = () if user is None else (user,)
    return str(write_pair(file, AUTHORITY.issue(*hosts, common_names=names)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an authority, a server's certificate, two users' and a users file."""
    AUTHORITY.write(tmp_path / "ca.pem")
    issue(tmp_path / "server.pem", "localhost", "127.0.0.1", "::1")
    for user in ("ann", "bob"):
        issue(tmp_path / f"{user}.pem", user=user)
    (tmp_path / "users.toml").write_text(USERS)
    (tmp_path / "users.toml").chmod(0o600)
    return tmp_path


def over_dtls(folder: Path, **settings: Any) -> CoapSettings:  # Any: fields
    """Return the settings of CoAP over DTLS."""
    words: dict[str, Any] = {"port": 0, "certificate": str(folder / "server.pem")}
    words |= settings
    return CoapSettings(dtls=CoapDtlsSettings(**words))


def with_users(folder: Path) -> dict[str, Any]:  # Any: as above
    """Return the settings of a service with users, by their certificates."""
    return {
        "coap": over_dtls(folder, client_ca=str(folder / "ca.pem")),
        "auth": AuthSettings(users=str(folder / "users.toml")),
    }


def believing(folder: Path, user: str | None = None, **settings: Any) -> DtlsClientSettings:
    """Return the settings of a client that believes the folder's authority."""
    if user is not None:
        settings["certificate"] = str(folder / f"{user}.pem")
    return DtlsClientSettings(ca=str(folder / "ca.pem"), **settings)


def uri(service: NetService, path: str, host: str = "localhost") -> str:
    """Return the URI of a path."""
    assert service.secure_coap is not None
    return f"coaps://{host}:{service.secure_coap.port}/{path}"


def sessions(service: NetService) -> int:
    """Return how many DTLS sessions there are."""
    assert service.secure_coap is not None
    return service.secure_coap.dtls.sessions


@asynccontextmanager
async def served(
    reactor: Any,  # Any: reactors have no one type
    folder: Path,
    **settings: Any,  # Any: fields of Config
) -> AsyncIterator[tuple[NetService, CoapClient]]:
    """Run a service and a stranger as its client."""
    settings.setdefault("coap", over_dtls(folder))
    async with (
        serving(reactor, **settings) as service,
        CoapClient(reactor, QUICK, believing(folder)) as client,
    ):
        yield service, client


async def test_requests(reactor: Any, folder: Path) -> None:
    """Requests of all sizes are answered, and share one session."""
    async with served(reactor, folder) as (service, client):
        assert (await client.get(uri(service, "ping"))).text == "PONG"
        long = b"x" * 10_000
        assert (await client.post(uri(service, "echo"), long)).payload == long
        calls = [client.get(uri(service, "time")) for _ in range(5)]
        assert all(answer.ok for answer in await gatherResults(calls))
        stats = (await client.get(uri(service, "stats"), accept=50)).json()
        assert list(stats["certificates"]) == ["localhost"]
        assert stats["dtls"]["coap+dtls"]["established"] == 1


async def test_addresses(reactor: Any, folder: Path) -> None:
    """An address in a URI is one in the certificate; IPv6 is as good."""
    async with served(reactor, folder) as (service, client):
        assert (await client.get(uri(service, "ping", "127.0.0.1"))).text == "PONG"
    six = over_dtls(folder, interface="::1")
    async with served(reactor, folder, coap=six) as (service, client):
        assert (await client.get(uri(service, "ping", "[::1]"))).text == "PONG"


async def test_users(reactor: Any, folder: Path) -> None:
    """A client's certificate is its login; without one it is not let in."""
    async with serving(reactor, **with_users(folder)) as service:
        for user, code in (("ann", Code.CHANGED), ("bob", Code.FORBIDDEN)):
            async with CoapClient(reactor, QUICK, believing(folder, user)) as client:
                answer = await client.post(uri(service, "clients"), accept=50)
                assert answer.code == code
                if user == "ann":
                    (shown,) = answer.json()["clients"]
                    assert shown["user"] == "ann"
        async with CoapClient(reactor, QUICK, believing(folder)) as client:
            with pytest.raises(SecureSessionFailed, match="handshake failure"):
                await client.get(uri(service, "ping"))


async def test_servers_that_are_not_believed(reactor: Any, folder: Path) -> None:
    """A client refuses a server of another name or of a strange authority, unless told not to."""
    issue(folder / "server.pem", "other.test")
    async with served(reactor, folder) as (service, client):
        with pytest.raises(SecureSessionFailed, match="certificate is not for localhost"):
            await client.get(uri(service, "ping"))
        async with CoapClient(reactor, QUICK) as stranger:
            with pytest.raises(SecureSessionFailed, match="certificate verify failed"):
                await stranger.get(uri(service, "ping"))
        unverified = DtlsClientSettings(verify=False)
        async with CoapClient(reactor, QUICK, unverified) as careless:
            assert (await careless.get(uri(service, "ping"))).text == "PONG"


async def test_certificates_of_the_howto(reactor: Any, folder: Path) -> None:
    """The commands of the documentation make certificates that pass the strictest checks."""
    openssl = program("openssl", "openssl")
    page = HOWTO.read_text().split("\nTest certificates\n---", 1)[1]
    commands = re.search(r"::\n\n((?:    .*\n)+)", page)
    assert commands is not None
    script = f"cd {folder}\n{textwrap.dedent(commands[1])}"
    made = await run("sh", "-eu", data=script.encode())
    assert made.returncode == 0, made.stderr
    for purpose, name in (("sslserver", "server.crt"), ("sslclient", "ann.crt")):
        words = ("verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(folder / "ca.pem"))
        checked = await run(openssl, *words, str(folder / name))
        assert checked.returncode == 0, checked.stderr
    ann = believing(folder, certificate=str(folder / "ann.crt"), key=str(folder / "ann.key"))
    async with (
        served(reactor, folder, **with_users(folder)) as (service, _),
        CoapClient(reactor, QUICK, ann) as client,
    ):
        assert (await client.get(uri(service, "ping"))).text == "PONG"


async def test_nobody_listens(reactor: Any, folder: Path) -> None:
    """Where nobody listens a request fails at once."""
    async with served(reactor, folder) as (service, client):
        gone = uri(service, "ping")
        await service.stopService()
        with pytest.raises(SecureSessionFailed, match=r"nobody listens at 127"):
            await client.get(gone)


async def test_unreachable(reactor: Any) -> None:
    """An address that the kernel does not let us speak to is a failure like others."""
    async with CoapClient(reactor, QUICK) as client:
        with pytest.raises(SecureSessionFailed, match="cannot reach 255"):
            await client.get("coaps://255.255.255.255/ping")


async def test_bad_files(reactor: Any, folder: Path) -> None:
    """A client whose files cannot be used is not made."""
    with pytest.raises(ConfigError, match="No such file"):
        CoapClient(reactor, tls=DtlsClientSettings(ca=str(folder / "nope")))


async def test_renewal(reactor: Any, folder: Path) -> None:
    """The next handshake has the renewed certificate, and STATS tells of its end."""
    async with served(reactor, folder) as (service, client):
        await client.get(uri(service, "ping"))
        pair = AUTHORITY.issue("localhost", days=30)
        write_pair(folder / "server.pem", pair)
        async with CoapClient(reactor, QUICK, believing(folder)) as second:
            stats = (await second.get(uri(service, "stats"), accept=50)).json()
        assert stats["certificates"]["localhost"] < 60 * 86_400
        assert (await client.get(uri(service, "ping"))).text == "PONG"


async def test_idle_session(reactor: Any, folder: Path) -> None:
    """A session that the server has ended is begun anew with the next request."""
    coap = over_dtls(folder, idle_timeout=0.2)
    async with served(reactor, folder, coap=coap) as (service, client):
        await client.get(uri(service, "ping"))
        await until(reactor, lambda: sessions(service) == 0)
        assert (await client.get(uri(service, "ping"))).text == "PONG"
        assert service.secure_coap is not None
        assert service.secure_coap.dtls.counts.established == 2


async def test_stop(reactor: Any, folder: Path) -> None:
    """Who observes hears that the server stops, and then that its session is over."""
    async with served(reactor, folder) as (service, client):
        states = await client.observe(uri(service, "stats"))
        assert (await anext(states)).ok
        await service.stopService()
        last = await anext(states)
        assert last.code == Code.SERVICE_UNAVAILABLE
        assert service.secure_coap is not None
        assert service.secure_coap.dtls.counts.ended[End.DRAINED] == 1


async def test_ended_while_waiting(reactor: Any, folder: Path) -> None:
    """A request that is under way when its session ends fails with that."""
    async with served(reactor, folder) as (service, client):
        states = await client.observe(uri(service, "events"))
        await anext(states)
        assert service.secure_coap is not None
        dtls = service.secure_coap.dtls
        (peer,) = dtls._sessions
        dtls.end(peer, End.IDLE_TIMEOUT)
        with pytest.raises(SecureSessionFailed) as failed:
            await anext(states)
        assert isinstance(failed.value.cause, DtlsEnded)


async def test_restarted_server(reactor: Any, folder: Path) -> None:
    """A server that knows nothing of a session any more gets a new one after one call at most."""
    async with served(reactor, folder) as (service, client):
        await client.get(uri(service, "ping"))
        assert service.secure_coap is not None
        dtls = service.secure_coap.dtls
        (association,) = dtls._associations.values()
        dtls._end(association, End.CONNECTION_LOST, notify=False)
        with pytest.raises(CoapTimeout):
            await client.get(uri(service, "ping"))
        assert (await client.get(uri(service, "ping"))).text == "PONG"
        # Also where the caller has less patience than the repetitions take.
        (association,) = dtls._associations.values()
        dtls._end(association, End.CONNECTION_LOST, notify=False)
        with pytest.raises(CoapTimeout):
            await client.get(uri(service, "ping"), timeout=0.25)
        assert (await client.get(uri(service, "ping"))).text == "PONG"


async def test_bounded_client(reactor: Any, folder: Path) -> None:
    """A client ends the session that it has not used for longest, when it has too many."""
    few = believing(folder, max_sessions=2)
    async with (
        serving(reactor, coap=over_dtls(folder)) as service,
        CoapClient(reactor, QUICK, few) as client,
    ):
        issue(folder / "server.pem", "localhost", "127.0.0.1", "::1")
        other = over_dtls(folder)
        async with serving(reactor, coap=other) as second:
            await client.get(uri(service, "ping"))
            await client.get(uri(service, "ping", "127.0.0.1"))
            await client.get(uri(second, "ping"))
            await until(reactor, lambda: sessions(service) < 2)
            assert (sessions(service), sessions(second)) == (1, 1)


async def test_closed_client(reactor: Any, folder: Path) -> None:
    """A client that is closed during a handshake fails its calls, and leaves nothing."""
    async with served(reactor, folder) as (service, client):
        call = client.get(uri(service, "ping", "127.0.0.1"))
        await client.close()
        with pytest.raises((CoapClientClosed, SecureSessionFailed)):
            await call


async def test_small_mtu(reactor: Any, folder: Path) -> None:
    """Bodies pass a small MTU in small blocks; a message that cannot is refused in words."""
    coap = over_dtls(folder, mtu=300)
    small = believing(folder, mtu=300)
    async with (
        serving(reactor, coap=coap) as service,
        CoapClient(reactor, QUICK, small) as client,
    ):
        long = b"x" * 2000
        assert (await client.post(uri(service, "echo"), long)).payload == long
        with pytest.raises(TransferFailed, match="a datagram to 127"):
            await client.get(uri(service, "x" * 250 + "/" + "y" * 100))


async def test_example(reactor: Any, folder: Path) -> None:
    """The example's lock opens for whom the certificate names, and for nobody without one."""
    words = [sys.executable, str(EXAMPLE), "server.pem", "ca.pem", "0"]
    async with Running(reactor, words, folder) as example:
        port = (await example.logged(r"listening on 127.0.0.1:(\d+)"))[1]
        lock = f"coaps://localhost:{port}/unlock"
        async with CoapClient(reactor, QUICK, believing(folder, "ann")) as client:
            assert (await client.post(lock)).text == "open for ann"
        async with CoapClient(reactor, QUICK, believing(folder)) as client:
            with pytest.raises(SecureSessionFailed):
                await client.post(lock)


async def test_datagrams(reactor: Any, folder: Path) -> None:
    """The datagram server answers over DTLS as it does without, also what is too long."""
    from tests.dtls.dtls_wire import Inner
    from twisted_net.dtls.client import DtlsClient
    from twisted_net.dtls.session import client_context

    dtls = UdpDtlsSettings(port=0, certificate=str(folder / "server.pem"))
    udp = UdpSettings(enabled=False, dtls=dtls, max_datagram=500)
    settings = believing(folder)
    # Its own settings of UDP, where the others have none.
    async with serving(reactor, udp=udp) as service:
        assert service.secure_udp is not None
        assert service.secure_udp.port is not None
        inner = Inner(echo=False)
        address = ("127.0.0.1", service.secure_udp.port)
        client = DtlsClient(
            reactor, inner, client_context(settings), settings, address, "localhost"
        )
        port = reactor.listenUDP(0, client)
        await client.connected()
        for datagram in (b"ping", b"\xff\0\0\x29", b"a" * 1000, b"b" * 500):
            client.write(datagram)
        client.write(b"stats")
        await until(reactor, lambda: len(inner.got) == 5)
        *answers, stats = [answer for answer, _ in inner.got]
        assert answers == [
            b"PONG",
            b"\xff\0\0\x2a",
            b"ERROR: datagram longer than 500 bytes",
            b"ECHO: " + b"b" * 500,
        ]
        assert json.loads(stats)["active_clients"] == 1
        assert client.getHost().port == port.getHost().port
        server = service.secure_udp.dtls
        assert server.getHost().port == address[1]
        await client.stopListening()
        await until(reactor, lambda: server.counts.ended[End.CLIENT_CLOSED] == 1)
