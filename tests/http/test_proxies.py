"""Tests of :mod:`twisted_net.http.proxies` and of the ways through a proxy."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ClientFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.http.fakes import FakeResolver, HttpTestCase, ServerSide, refuse
from twisted_net.http import proxies
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.errors import (
    AddressRefused,
    FetchTimeout,
    NameNotFound,
    ProxyFailed,
)
from twisted_net.http.proxies import (
    MAX_CONNECT_HEAD,
    Proxy,
    ProxyBypass,
    connect_request,
    find_proxy_routes,
    parse_proxy,
    tunnel_opened,
)
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import EgressPolicy, HttpSettings
from twisted_net.http.tunnel import Tunnel
from twisted_net.http.urls import parse_target
from twisted_net.net.addresses import parse_ip

BASIC = "Basic dXNlcjpwOnc="  # user:p:w
WITH_PASSWORD = "http://user:p%3Aw@proxy.example:3128"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ReadProxyTests(SynchronousTestCase):
    """:func:`parse_proxy` parses a URL, and never shows a malformed one."""

    def test_forms(self) -> None:
        """The scheme and the port are optional; credentials are decoded."""
        self.assertEqual(parse_proxy("proxy:3128"), Proxy("proxy", 3128))
        self.assertEqual(parse_proxy("http://PROXY/"), Proxy("proxy", 80))
        self.assertEqual(parse_proxy("http://[::1]:8080"), Proxy("::1", 8080))
        self.assertEqual(parse_proxy(WITH_PASSWORD), Proxy("proxy.example", 3128, BASIC))

    def test_socks(self) -> None:
        """SOCKS proxies are named as what is not supported, and not taken for a mistake."""
        for url in ("socks5://p:1080", "SOCKS4a://p", "socks5h://user:hidden@p:1"):
            error = self.assertRaises(ValueError, parse_proxy, url)
            self.assertIn("SOCKS proxies are not supported", str(error))
        self.assertEqual(parse_proxy("socks:1080"), Proxy("socks", 1080))

    def test_secret(self) -> None:
        """Neither the proxy's repr nor an error shows the password."""
        self.assertNotIn(BASIC, repr(parse_proxy(WITH_PASSWORD)))
        for url in (
            "https://user:hidden@proxy",
            "socks5://user:hidden@proxy",
            "http://user:hidden@proxy/path",
            "http://user:hid/hidden@proxy",
            "user:hidden@pro xy",
            "http://us%3Aer:hidden@proxy",
            "http://",
        ):
            error = self.assertRaises(ValueError, parse_proxy, url)
            self.assertIn("proxy's URL", str(error))
            self.assertNotIn("hidden", str(error))
            error = self.assertRaises(ValueError, HttpSettings, proxy=url)
            self.assertIn("HttpSettings.proxy: ", str(error))
            self.assertNotIn("hidden", str(error))


class BypassTests(SynchronousTestCase):
    """:class:`ProxyBypass` has the rules of ``NO_PROXY`` in Go's programs."""

    def test_rules(self) -> None:
        """Names with those below them, domains, ports, addresses, networks, and ``*``."""
        for entry, covered, other in (
            ("Example.org", ["example.org", "a.example.org", "example.org."], ["badexample.org"]),
            (".example.org", ["a.example.org"], ["example.org", "badexample.org"]),
            ("*.example.org", ["a.b.example.org"], ["example.org", "example.com"]),
            ("10.0.0.0/8", ["10.1.2.3"], ["11.1.2.3", "ten.example", "::1"]),
            ("10.0.0.1", ["10.0.0.1"], ["10.0.0.10", "0.10.0.0.1"]),
            ("fd00::/8", ["fd12::1"], ["fe80::1"]),
            ("::1", ["::1"], ["::2"]),
            ("[::1]", ["::1"], ["::2"]),
            ("*", ["example.org", "::1"], []),
            ("127.1", ["127.0.0.1", "::ffff:7f00:1"], ["127.0.0.2"]),
            ("127.0.0.0/8", ["::ffff:7f00:1"], ["::1"]),
            ("::ffff:127.0.0.1", ["127.0.0.1"], ["127.0.0.2"]),
            ("bücher.example", ["xn--bcher-kva.example"], ["example"]),
            ("", [], ["example.org"]),
        ):
            bypass = ProxyBypass([entry])
            for host in covered:
                self.assertTrue(bypass.covers(host, 80), (entry, host))
            for host in other:
                self.assertFalse(bypass.covers(host, 80), (entry, host))

    def test_many_networks(self) -> None:
        """A host is looked at once, whether it is an address, for all networks and requests."""
        for host in ("many-networks.example", "192.0.2.77"):
            bypass = ProxyBypass([f"10.{i}.0.0/16" for i in range(50)])
            with patch.object(proxies, "parse_ip", wraps=parse_ip) as parse:
                self.assertFalse(bypass.covers(host, 80) or bypass.covers(host + ".", 443))
            parse.assert_called_once_with(host)

    def test_ports(self) -> None:
        """A port restricts its entry."""
        bypass = ProxyBypass(["example.org:8080", "[::1]:81", "10.0.0.1:82"])
        for host, port in (("example.org", 8080), ("::1", 81), ("10.0.0.1", 82)):
            self.assertTrue(bypass.covers(host, port))
            self.assertFalse(bypass.covers(host, 80))

    def test_malformed(self) -> None:
        """A malformed rule is refused, and named."""
        for entry in (
            "exa mple",
            "10.0.0.1/8",
            "a:b",
            "a/b",
            ":80",
            "*a",
            "1.2.3.4.5",
            "*.1",
            "a..b",
        ):
            error = self.assertRaises(ValueError, ProxyBypass, [entry])
            self.assertIn(repr(entry), str(error))
            error = self.assertRaises(ValueError, HttpSettings, no_proxy=(entry,))
            self.assertIn("HttpSettings.no_proxy: ", str(error))

    @given(st.text(max_size=20))
    def test_anything(self, entry: str) -> None:
        """Any text is a rule or a ValueError."""
        try:
            bypass = ProxyBypass([entry])
        except ValueError:
            return
        self.assertIn(bypass.covers("example.org", 80), (True, False))


class FindRoutesTests(SynchronousTestCase):
    """:func:`find_proxy_routes` reads the environment only if the setting says so."""

    def ways(self, environ: dict[str, str], *no_proxy: str) -> list[str | None]:
        """Return the proxies for an http, an https and an internal URL."""
        routes = find_proxy_routes("environment", no_proxy, environ)
        found: list[str | None] = []
        for url in ("http://a.example/", "https://a.example/", "http://in.example/"):
            proxy = routes and routes.proxy_for(parse_target(url))
            found.append(proxy.host if proxy else None)
        return found

    def test_not_told(self) -> None:
        """Without a setting the environment is not read."""
        self.assertIsNone(find_proxy_routes(None, (), {"http_proxy": "p", "https_proxy": "p"}))

    def test_url(self) -> None:
        """A URL is used for both schemes, whatever the environment says."""
        routes = find_proxy_routes("http://p", ["b.example"], {"http_proxy": "q", "no_proxy": "*"})
        assert routes is not None
        for scheme in ("http", "https"):
            self.assertEqual(
                routes.proxy_for(parse_target(f"{scheme}://a.example/")), Proxy("p", 80)
            )
            self.assertIsNone(routes.proxy_for(parse_target(f"{scheme}://b.example/")))

    def test_variables(self) -> None:
        """Each scheme has its own proxy; lower case has precedence; both bypass lists apply."""
        self.assertEqual(self.ways({}), [None, None, None])
        self.assertEqual(self.ways({"http_proxy": ""}), [None, None, None])
        self.assertEqual(self.ways({"HTTP_PROXY": "p"}), ["p", None, "p"])
        self.assertEqual(self.ways({"HTTPS_PROXY": "s", "https_proxy": "t"}), [None, "t", None])
        both = {"http_proxy": "p", "HTTP_PROXY": "x", "HTTPS_PROXY": "s"}
        self.assertEqual(self.ways(both), ["p", "s", "p"])
        self.assertEqual(self.ways(both, "in.example"), ["p", "s", None])
        both["NO_PROXY"] = "<local>, in.example"
        self.assertEqual(self.ways(both), ["p", "s", None])
        self.assertEqual(self.ways(both, "a.example"), [None, None, None])

    def test_malformed_variable(self) -> None:
        """An error names the malformed variable, and does not show its value."""
        error = self.assertRaises(ValueError, self.ways, {"HTTPS_PROXY": "socks5://u:hidden@p"})
        self.assertTrue(str(error).startswith("HTTPS_PROXY: a proxy's URL must "))
        self.assertNotIn("hidden", str(error))

    def test_httpoxy(self) -> None:
        """In a CGI script ``HTTP_PROXY``, which any client can set, is ignored."""
        cgi = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "evil"}
        self.assertEqual(self.ways(cgi), [None, None, None])
        self.assertEqual(self.ways({**cgi, "http_proxy": "p"}), ["p", None, "p"])


class AnswerTests(SynchronousTestCase):
    """:func:`tunnel_opened` checks all that a proxy sends."""

    def test_request(self) -> None:
        """The authority always has a port; credentials are sent if there are any."""
        self.assertEqual(
            connect_request(Proxy("p", 1), "::1", 443),
            b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
        )
        self.assertEqual(
            connect_request(Proxy("p", 1, BASIC), "a", 80),
            b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nProxy-Authorization: "
            + BASIC.encode()
            + b"\r\n\r\n",
        )

    def test_any_cut(self) -> None:
        """It is open after the last byte of the final response, with interim ones before or not."""
        for answer in (OPEN, b"HTTP/1.0 200\n\n", b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OPEN):
            for cut in range(len(answer)):
                self.assertFalse(tunnel_opened(answer[:cut], "a"), answer[:cut])
            self.assertTrue(tunnel_opened(answer, "a"))

    def test_refused(self) -> None:
        """Any status but success is an error with this status."""
        for status, transient in ((301, False), (403, False), (407, False), (502, True)):
            answer = b"HTTP/1.1 %d No\r\nX: y\r\n\r\nbody" % status
            error = self.assertRaises(ProxyFailed, tunnel_opened, answer, "a.example")
            self.assertEqual(error.details(), {"host": "a.example", "status": status})
            self.assertEqual((error.transient, error.unsent), (transient, True))
            self.assertIn(
                f"cannot reach a.example through the proxy: it answered with status {status}",
                str(error),
            )
            self.assertEqual("credentials" in str(error), status == 407)

    def test_rubbish(self) -> None:
        """Other protocols, an endless header, endless interim responses, extra data are errors."""
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        for answer, words in (
            (b"SSH-2.0\r\n\r\n", "not HTTP"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_CONNECT_HEAD, "larger"),
            (interim * (MAX_CONNECT_HEAD // len(interim) + 1), "larger"),
            (OPEN + b"injected", "before any request"),
        ):
            error = self.assertRaises(ProxyFailed, tunnel_opened, answer, "a")
            self.assertIn(words, str(error))
            self.assertIsNone(error.status)


class ThroughProxyTests(HttpTestCase):
    """Requests through a proxy, with a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = FakeResolver(
            {
                "proxy.example": ["10.0.0.9"],
                "a.example": ["1.1.1.1"],
                "b.example": ["1.1.1.2"],
                "two.example": ["1.1.1.1", "1.1.1.2"],
                "bad.example": ["1.1.1.1", "10.0.0.1"],
            }
        )

    def agent(self, egress: EgressPolicy | None = None, **settings: Any) -> HTTPAgent:
        """Return an agent that uses the proxy and never retries."""
        settings = {"proxy": WITH_PASSWORD, "retry": RetryPolicy(retries=0), **settings}
        return HTTPAgent(
            self.reactor,
            HttpSettings(**settings),
            egress=egress,
            resolver=self.resolver,
            environ={},
        )

    def get(self, agent: HTTPAgent, url: str, method: bytes = b"GET") -> Deferred[IResponse]:
        """Request *url*."""
        return agent.request(method, url.encode(), Headers({"cache-control": ["no-store"]}))

    def test_absolute_form(self) -> None:
        """An http request is sent to the proxy whole, with its credentials, without a look-up."""
        for method in (b"GET", b"POST"):
            answered = self.get(self.agent(), "http://a.example:81/x?y", method)
            wire = ServerSide(self.reactor)
            self.assertEqual((wire.host, wire.port), ("10.0.0.9", 3128))
            lines = wire.received().split(b"\r\n")
            self.assertEqual(lines[0], method + b" http://a.example:81/x?y HTTP/1.1")
            self.assertIn(b"Host: a.example:81", lines)
            self.assertEqual(lines.count(b"Proxy-Authorization: " + BASIC.encode()), 1)
            wire.send(OK)
            self.assertEqual(self.successResultOf(answered).code, 200)
        self.assertEqual(set(self.resolver.asked), {"proxy.example"})

    def test_without_credentials(self) -> None:
        """A proxy without credentials is sent none."""
        self.get(self.agent(proxy="http://10.0.0.9"), "http://a.example/").addErrback(str)
        self.assertNotIn(b"Authorization", ServerSide(self.reactor).received())

    def test_407(self) -> None:
        """A proxy's 407 to an http request is an error."""
        answered = self.get(self.agent(), "http://a.example/")
        wire = ServerSide(self.reactor)
        wire.send(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        error = self.failureResultOf(answered, ProxyFailed).value
        self.assertEqual((error.status, error.unsent), (407, False))
        self.assertNotIn(BASIC, str(error) + repr(vars(error)))

    def test_407_of_the_server(self) -> None:
        """Without a proxy 407 is a response like any other."""
        answered = self.get(self.agent(proxy=None), "http://a.example/")
        ServerSide(self.reactor).send(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(answered).code, 407)

    def test_never_mixed(self) -> None:
        """Each origin has its own connections, all by the same route."""
        agent = self.agent(no_proxy=("b.example",))
        for host in ("a", "b"):
            answered = self.get(agent, f"http://{host}.example/")
            wire = ServerSide(self.reactor)
            wire.received()
            wire.send(OK)
            self.successResultOf(answered)
            again = self.get(agent, f"http://{host}.example/2")
            sent = wire.received()
            wire.send(OK)
            self.successResultOf(again)
            self.assertEqual(BASIC.encode() in sent, host == "a")
            self.assertEqual(sent.startswith(b"GET http://"), host == "a")
        found = [client[:2] for client in self.reactor.tcpClients]
        self.assertEqual(found, [("10.0.0.9", 3128), ("1.1.1.2", 80)])

    def test_guard(self) -> None:
        """With a guard the tunnel leads to the checked address; the server sees no difference."""
        answered = self.get(self.agent(EgressPolicy()), "http://a.example/x")
        wire = ServerSide(self.reactor)
        self.assertEqual(wire.host, "10.0.0.9")
        sent = wire.received()
        self.assertTrue(sent.startswith(b"CONNECT 1.1.1.1:80 HTTP/1.1\r\n"), sent)
        self.assertIn(BASIC.encode(), sent)
        wire.send(OPEN)
        sent = wire.received()
        self.assertTrue(sent.startswith(b"GET /x HTTP/1.1\r\nHost: a.example\r\n"), sent)
        self.assertNotIn(b"Proxy-Authorization", sent)
        wire.send(OK)
        self.assertEqual(self.successResultOf(answered).code, 200)

    def test_guard_refuses(self) -> None:
        """A destination that the guard refuses is never sent to the proxy."""
        for url in ("http://bad.example/", "http://127.0.0.1/", "http://a.example:22/"):
            self.failureResultOf(self.get(self.agent(EgressPolicy()), url), AddressRefused)
        self.failureResultOf(
            self.get(self.agent(EgressPolicy()), "http://nope.example/"), NameNotFound
        )
        self.assertEqual(self.reactor.tcpClients, [])

    def test_next_address(self) -> None:
        """The proxy is asked for each address of a host in turn; the first error is raised."""
        answered = self.get(self.agent(EgressPolicy()), "http://two.example/")
        for address, status in ((b"1.1.1.1", b"502"), (b"1.1.1.2", b"504")):
            self.assertNoResult(answered)
            wire = ServerSide(self.reactor)
            self.assertIn(b"CONNECT " + address, wire.received())
            wire.send(b"HTTP/1.1 " + status + b" No\r\n\r\n")
            self.assertTrue(wire.transport.ended)
        self.assertEqual(self.failureResultOf(answered, ProxyFailed).value.status, 502)

    def test_refused_for_good(self) -> None:
        """A proxy that refuses permanently is not asked again."""
        answered = self.get(self.agent(EgressPolicy()), "http://two.example/")
        ServerSide(self.reactor).send(b"HTTP/1.1 403 No\r\n\r\n")
        self.assertEqual(self.failureResultOf(answered, ProxyFailed).value.status, 403)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_unreachable(self) -> None:
        """A proxy without an address, or that cannot be reached, is a transient error."""
        answered = self.get(self.agent(proxy="http://nope.example"), "http://a.example/")
        error = self.failureResultOf(answered, ProxyFailed).value
        self.assertIn("its name has no address", str(error))
        answered = self.get(self.agent(), "https://a.example/")
        refuse(self.reactor, ConnectError())
        error = self.failureResultOf(answered, ProxyFailed).value
        self.assertTrue(error.transient and error.unsent)
        self.assertNotIn("proxy.example", str(error))

    def test_timeout(self) -> None:
        """The timeout of connecting includes the tunnel; no connection and no timer is left."""
        answered = self.get(self.agent(connect_timeout=5.0), "https://a.example/")
        wire = ServerSide(self.reactor)
        self.reactor.advance(4.0)
        wire.send(OPEN[:10])
        self.assertNoResult(answered)
        self.reactor.advance(1.0)
        error = self.failureResultOf(answered, FetchTimeout).value
        self.assertEqual((error.phase, error.limit), ("connect", 5.0))
        self.assertTrue(wire.transport.ended)
        self.assert_quiet(self.reactor)

    def test_closed(self) -> None:
        """A proxy that closes instead of answering is an error."""
        answered = self.get(self.agent(), "https://a.example/")
        ServerSide(self.reactor).close()
        error = self.failureResultOf(answered, ProxyFailed).value
        self.assertIn("it closed the connection", str(error))

    def test_failing_policy(self) -> None:
        """A policy that fails for a host fails the request, and closes the tunnel."""

        class Failing:
            def creatorForNetloc(self, hostname: bytes, port: int) -> None:
                raise ValueError("no such name")

        agent = HTTPAgent(
            self.reactor,
            HttpSettings(proxy=WITH_PASSWORD),
            resolver=self.resolver,
            tls_policy=cast(Any, Failing()),  # Any: one by its only method
            environ={},
        )
        answered = self.get(agent, "https://a.example/")
        wire = ServerSide(self.reactor)
        wire.send(OPEN)
        self.failureResultOf(answered, ValueError)
        self.assertTrue(wire.transport.ended)

    def test_tunnel_lost(self) -> None:
        """The protocol in the tunnel is informed of its end."""
        answered = self.get(self.agent(EgressPolicy()), "http://a.example/")
        wire = ServerSide(self.reactor)
        wire.send(OPEN)
        wire.close()
        self.assertEqual(self.failureResultOf(answered).value.code, "connection_broken")

    def test_given_up(self) -> None:
        """A tunnel that was cancelled, or not requested, drops the connection on any data."""
        for ask in (True, False):
            tunnel = Tunnel("a")
            reactor = MemoryReactorClock()
            factory = ClientFactory()
            factory.protocol = cast(Any, lambda made=tunnel: made)  # Any: one that is there already
            reactor.connectTCP("1.1.1.1", 1, factory)
            wire = ServerSide(reactor)
            if ask:
                opening = tunnel.open(b"CONNECT")
                opening.cancel()
                self.failureResultOf(opening, CancelledError)
            wire.send(OPEN)
            self.assertTrue(wire.transport.ended)
            reactor.advance(0)
