"""Tests of what a call does otherwise than the settings: timeouts, proxy and progress."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, succeed
from twisted.internet.error import ConnectError

from tests.http.fakes import FakeResolver, ServerSide, canned, refuse
from tests.http.test_client import FRESH, URL, ClientTestCase
from twisted_net.http.calls.progress import TransferProgress
from twisted_net.http.calls.timeouts import Timeouts
from twisted_net.http.calls.upload import PIECE
from twisted_net.http.client import Client
from twisted_net.http.errors import CircuitOpen, FetchTimeout, ProxyFailed
from twisted_net.http.settings import EgressPolicy, HttpSettings

ADDRESS = "http://1.2.3.4/"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"


class TimeoutsTests(ClientTestCase):
    """:class:`Timeouts` of a call."""

    def failed(self, timeouts: Timeouts, settings: HttpSettings, phase: str) -> tuple[str, float]:
        """Make a call that waits in *phase* for ever; return the phase and the limit it named."""
        client = Client(self.clock, settings)
        asking = self.start(client.get(ADDRESS, timeout=timeouts, retries=0))
        if phase != "connect":
            wire = ServerSide(self.clock)
            wire.send(HEAD if phase == "body" else b"")
        for _ in range(40):
            self.clock.advance(1.0)
        error = self.failureResultOf(asking, FetchTimeout).value
        self.assertEqual(error.total, error.limit == 30.0)
        return error.phase, error.limit

    def test_phases(self) -> None:
        """Each phase has its own limit; what is not passed is as in the settings."""
        settings = HttpSettings(headers_timeout=5.0, silence_timeout=6.0)
        for timeouts, phase, limit in (
            (Timeouts(), "connect", 10.0),
            (Timeouts(connect=3.0), "connect", 3.0),
            (Timeouts(connect=20.0), "connect", 20.0),
            (Timeouts(connect=None), "connect", 30.0),
            (Timeouts(), "headers", 5.0),
            (Timeouts(headers=2.0), "headers", 2.0),
            (Timeouts(headers=None), "headers", 30.0),
            (Timeouts(), "body", 6.0),
            (Timeouts(silence=2.0), "body", 2.0),
            (Timeouts(silence=None), "body", 30.0),
        ):
            with self.subTest(timeouts=timeouts, phase=phase):
                self.assertEqual(self.failed(timeouts, settings, phase), (phase, limit))

    def test_many_addresses(self) -> None:
        """All addresses of a host are tried within the time that the call has to connect."""
        resolver = FakeResolver({"forty.example": [f"1.1.1.{i}" for i in range(40)]})
        client = Client(self.clock, resolver=resolver)
        for timeouts in (Timeouts(connect=8.0), Timeouts(total=8.0)):
            before = len(self.clock.tcpClients)
            asking = self.start(client.get("http://forty.example/", timeout=timeouts, retries=0))
            self.clock.pump([0.1] * 41)
            self.assertEqual(len(self.clock.tcpClients) - before, 40)
            asking.cancel()
            self.failureResultOf(asking, CancelledError)

    def test_total(self) -> None:
        """The whole call has a limit, too, or none."""
        client = Client(self.clock)
        asking = self.start(client.get(ADDRESS, timeout=Timeouts(total=2.0)))
        self.clock.advance(2.0)
        self.assertTrue(self.failureResultOf(asking, FetchTimeout).value.total)
        endless = Timeouts(total=None, connect=None)
        asking = self.start(client.get(ADDRESS, timeout=endless, retries=0))
        self.clock.advance(80_000.0)
        self.assertNoResult(asking)

    def test_refused(self) -> None:
        """What is no time is refused where it is made."""
        for options, error in (
            ({"connect": -1.0}, ValueError),
            ({"total": float("nan")}, ValueError),
            ({"headers": "1"}, TypeError),
            ({"read": 1.0}, TypeError),
        ):
            said = str(self.assertRaises(error, Timeouts, **options))
            self.assertTrue(said.startswith("Timeouts: "), said)


class ProxyTests(ClientTestCase):
    """The proxy of a call."""

    def connected(self, client: Client, **options: Any) -> tuple[str, bytes]:
        """Make a call over a new connection; return where it went, and the request line."""
        asking = self.start(client.get(ADDRESS, cache=False, **options))
        wire = ServerSide(self.clock)
        line = wire.received().partition(b"\r\n")[0]
        wire.send(HEAD + b"abc")
        self.successResultOf(asking)
        return wire.host, line

    def test_route(self) -> None:
        """A call has its own proxy, or none, whatever the settings say."""
        settings = HttpSettings(proxy="http://9.9.9.9:3128", no_proxy=("1.2.3.4",))
        for made, options, host in (
            (HttpSettings(), {"proxy": "http://8.8.8.8"}, "8.8.8.8"),
            (settings, {"proxy": "http://8.8.8.8"}, "8.8.8.8"),
            (HttpSettings(proxy="http://9.9.9.9"), {}, "9.9.9.9"),
            (HttpSettings(proxy="http://9.9.9.9"), {"proxy": None}, "1.2.3.4"),
        ):
            found, line = self.connected(Client(self.clock, made), **options)
            self.assertEqual(found, host)
            target = b"/" if host == "1.2.3.4" else ADDRESS.encode()
            self.assertEqual(line, b"GET " + target + b" HTTP/1.1")

    def test_connections(self) -> None:
        """A connection never stands for another route."""
        client = Client(self.clock)
        for options in ({}, {"proxy": "http://8.8.8.8"}, {"proxy": "http://u:p@8.8.8.8"}):
            self.connected(client, **options)
        self.assertEqual(len(self.clock.tcpClients), 3)
        asking = self.start(client.get(ADDRESS, cache=False, proxy="http://8.8.8.8:80/"))
        self.assertEqual(len(self.clock.tcpClients), 3)
        self.assertNoResult(asking)

    def test_guarded(self) -> None:
        """With an egress policy it is asked for a tunnel to an address that is allowed."""
        client = Client(self.clock, egress=EgressPolicy())
        self.start(client.get("http://1.1.1.1/", proxy="http://8.8.8.8"))
        self.assertEqual(
            ServerSide(self.clock).received().partition(b"\r\n")[0], b"CONNECT 1.1.1.1:80 HTTP/1.1"
        )

    def test_refused(self) -> None:
        """A proxy that is none says what one is like."""
        client = Client(self.clock)
        for proxy in ("socks5://h:1080", "https://h/", "http://", "http://h/path"):
            error = self.failureResultOf(self.start(client.get(ADDRESS, proxy=proxy)), ValueError)
            self.assertIn("Client: proxy: a proxy's URL must", str(error.value))
        asking = self.start(client.get(ADDRESS, proxy="environment"))
        self.assertIn("a word of the settings", str(self.failureResultOf(asking, ValueError).value))

    def test_breaker(self) -> None:
        """A proxy that fails closes no other route to the origin."""
        client = Client(self.clock)
        options: dict[str, Any] = {"proxy": "http://8.8.8.8", "retries": 0}
        for _ in range(10):
            asking = self.start(client.get(ADDRESS, **options))
            refuse(self.clock, ConnectError())
            self.failureResultOf(asking, ProxyFailed)
        self.failureResultOf(self.start(client.get(ADDRESS, **options)), CircuitOpen)
        self.assertEqual(self.connected(client)[0], "1.2.3.4")

    def test_revalidation(self) -> None:
        """What is requested in the background takes the route of the call."""
        client = Client(self.clock, wall=self.clock.seconds)
        options: dict[str, Any] = {"proxy": "http://8.8.8.8"}
        asking = self.start(client.get(ADDRESS, **options))
        stale = b"Cache-Control: max-age=1, stale-while-revalidate=60\r\nContent-Length: 1\r\n\r\nx"
        ServerSide(self.clock).send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + stale)
        self.successResultOf(asking)
        self.clock.advance(5.0)
        self.assertTrue(self.run_now(client.get(ADDRESS, **options)).from_cache)
        self.assertEqual([host for host, *_ in self.clock.tcpClients], ["8.8.8.8", "8.8.8.8"])


class ProgressTests(ClientTestCase):
    """``progress`` of a call."""

    def test_download(self) -> None:
        """The bytes of a response are counted as they arrive."""
        seen: list[TransferProgress] = []
        client = Client(self.clock)
        asking = self.start(client.get(ADDRESS, progress=seen.append))
        wire = ServerSide(self.clock)
        wire.send(HEAD + b"a")
        wire.send(b"bc")
        self.assertEqual(self.successResultOf(asking).body, b"abc")
        expected = [TransferProgress("download", done, 3) for done in (1, 3)]
        self.assertEqual(seen, expected)
        asking = self.start(client.get(ADDRESS, progress=seen.append))
        wire.send(HEAD + b"abc")
        self.successResultOf(asking)
        self.assertEqual(seen[2:], [TransferProgress("download", 3, 3)])

    def test_chunked(self) -> None:
        """Without a length there is no total."""
        seen: list[TransferProgress] = []
        asking = self.start(Client(self.clock).get(ADDRESS, progress=seen.append))
        wire = ServerSide(self.clock)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        wire.send(b"1\r\nc\r\n0\r\n\r\n")
        self.successResultOf(asking)
        self.assertEqual((seen[-1].done, seen[-1].total), (3, None))

    def test_upload(self) -> None:
        """The bytes of a request are counted as they are sent."""
        seen: list[TransferProgress] = []
        self.answer(canned(200))
        self.run_now(self.client.post(URL, data=iter([b"ab", b"c"]), progress=seen.append))
        self.assertEqual(seen[:2], [TransferProgress("upload", done, None) for done in (2, 3)])
        self.answer(canned(200))
        self.run_now(self.client.post(URL, data=b"abc", progress=seen.append))
        self.assertEqual(seen[-2:-1], [TransferProgress("upload", 3, 3)])
        # A large one in memory is sent, and counted, as the server takes it.
        seen.clear()
        self.answer(canned(200))
        self.run_now(self.client.post(URL, data=b"x" * 3 * PIECE, progress=seen.append))
        whole = 3 * PIECE
        self.assertEqual(
            seen[:-1], [TransferProgress("upload", part * PIECE, whole) for part in (1, 2, 3)]
        )

    def test_cached(self) -> None:
        """A response from the cache is no transfer."""
        seen: list[TransferProgress] = []
        self.answer(canned(200, b"x", [FRESH]))
        self.run_now(self.client.get(URL))
        self.run_now(self.client.get(URL, progress=seen.append))
        self.assertEqual(seen, [])

    def test_failure(self) -> None:
        """A function that fails is logged, and not called again; the call goes on."""
        calls = []

        def fail(progress: TransferProgress) -> None:
            calls.append(progress)
            raise LookupError

        self.answer(canned(200, b"abc"))
        self.assertEqual(self.run_now(self.client.post(URL, data=b"x", progress=fail)).body, b"abc")
        self.assertEqual((len(calls), len(self.flushLoggedErrors(LookupError))), (1, 1))

    def test_stream(self) -> None:
        """A streamed response is counted as it is read from the network."""
        seen: list[TransferProgress] = []
        self.answer(succeed(canned(200, b"abc")))
        opening = self.client.stream("GET", URL, progress=seen.append)
        self.assertEqual(self.run_now(self.run_now(opening.__aenter__()).read()), b"abc")
        self.assertEqual(seen, [TransferProgress("download", 3, 3)])
